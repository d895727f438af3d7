#include "fetch/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <vector>

#include "sys/files.h"

namespace stoke::fetch {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kSha256Digits = 64;

struct ContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

}  // namespace

Result<std::string> sha256_file(const std::string& path, const KeepGoing& keep_going) {
  STOKE_ASSIGN(const sys::File file, sys::File::open_read(path));
  STOKE_ASSIGN(const uint64_t size, file.size());
  const std::unique_ptr<EVP_MD_CTX, ContextDeleter> context(EVP_MD_CTX_new());
  const Status failed(Code::kIo, "the crypto library refuses SHA-256");
  if (context == nullptr || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1) return failed;
  std::vector<std::byte> piece(kPieceBytes);
  for (uint64_t at = 0; at < size; at += kPieceBytes) {
    const size_t bytes = std::min<uint64_t>(kPieceBytes, size - at);
    STOKE_TRY(file.pread_full(piece.data(), bytes, at));
    if (EVP_DigestUpdate(context.get(), piece.data(), bytes) != 1) return failed;
    if (keep_going && !keep_going(at + bytes)) return Status(Code::kCancelled, "stopped while checking " + path);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_bytes = 0;
  if (EVP_DigestFinal_ex(context.get(), digest, &digest_bytes) != 1) return failed;
  std::string text;
  for (unsigned i = 0; i < digest_bytes; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

Result<std::string> parse_sha256(std::string_view text) {
  std::string digits(text);
  for (char& c : digits) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool hex = digits.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (hex && digits.size() == kSha256Digits) return digits;
  return Status(Code::kInvalid, fmt::format("'{}' is no SHA-256: 64 hexadecimal digits are", text));
}

}  // namespace stoke::fetch
