// SHA-256 of files and of bytes as they come, as 64 lower-case hexadecimal digits.
//
// Thread role: any. Ownership: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

struct evp_md_ctx_st;

namespace stoke::fetch {

// Of bytes that come in pieces. Failures (kIo): the crypto library refuses.
class Sha256 {
 public:
  Sha256();
  Status reset();  // to be called before the first piece, too
  Status add(std::span<const std::byte> bytes);
  Result<std::string> finish();  // reset() begins anew

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// Told how many bytes are done; false stops with kCancelled.
using KeepGoing = std::function<bool(uint64_t)>;

Result<std::string> sha256_file(const std::string& path, const KeepGoing& keep_going);

// "ABCD..." -> "abcd...": kInvalid when the text is not 64 hexadecimal digits.
Result<std::string> parse_sha256(std::string_view text);

}  // namespace stoke::fetch
