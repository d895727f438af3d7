#include "fetch/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "sys/files.h"

namespace stoke::fetch {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kSha256Digits = 64;

Status checked(bool right) { return right ? ok_status() : Status(Code::kIo, "the crypto library refuses SHA-256"); }

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {}

Status Sha256::reset() {
  return checked(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

Status Sha256::add(std::span<const std::byte> bytes) {
  return checked(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

Result<std::string> Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_bytes = 0;
  STOKE_TRY(checked(EVP_DigestFinal_ex(context_.get(), digest, &digest_bytes) == 1));
  std::string text;
  for (unsigned i = 0; i < digest_bytes; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

Result<std::string> sha256_file(const std::string& path, const KeepGoing& keep_going) {
  STOKE_ASSIGN(const sys::File file, sys::File::open_read(path));
  STOKE_ASSIGN(const uint64_t size, file.size());
  Sha256 sha256;
  STOKE_TRY(sha256.reset());
  std::vector<std::byte> piece(kPieceBytes);
  for (uint64_t at = 0; at < size; at += kPieceBytes) {
    const size_t bytes = std::min<uint64_t>(kPieceBytes, size - at);
    STOKE_TRY(file.pread_full(piece.data(), bytes, at));
    STOKE_TRY(sha256.add(std::span(piece).first(bytes)));
    if (keep_going && !keep_going(at + bytes)) return Status(Code::kCancelled, "stopped while checking " + path);
  }
  return sha256.finish();
}

Result<std::string> parse_sha256(std::string_view text) {
  std::string digits(text);
  for (char& c : digits) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool hex = digits.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (hex && digits.size() == kSha256Digits) return digits;
  return Status(Code::kInvalid, fmt::format("'{}' is no SHA-256: 64 hexadecimal digits are", text));
}

}  // namespace stoke::fetch
