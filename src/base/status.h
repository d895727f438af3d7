// Status and Result<T>: how expected failures travel in stoke.
//
// An expected failure (a bad file, a full disk, a model that does not fit) is a value with one line of text that says
// what, where and what to do. A bug stops the process (see check.h). Exceptions do not cross a folder.
// Thread role: any. Ownership: values.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace stoke {

enum class Code {
  kOk,
  kInvalid,      // the caller's argument or the model's data makes no sense
  kNotFound,     // no such file, tensor or key
  kIo,           // the operating system refused
  kCorrupt,      // bytes that contradict themselves
  kUnsupported,  // well formed, but not something stoke knows
  kNoMemory,     // would not fit into the budget or the machine
  kNoSpace,      // a disk is full
  kContextFull,  // the sequence has no position left
  kCancelled,    // the caller asked to stop
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same failure with "context: " put before its text.
  Status with(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_);
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status ok_status() { return Status(); }

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                              // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) { CHECK(!status_.ok()); }  // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  // Requires: ok().
  T& value() & { CHECK(ok()); return *value_; }
  const T& value() const& { CHECK(ok()); return *value_; }
  T&& value() && { CHECK(ok()); return std::move(*value_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace stoke

// Returns the failure of `expr` from the enclosing function; otherwise goes on.
#define STOKE_TRY(expr)                                    \
  do {                                                     \
    ::stoke::Status stoke_status_ = (expr);                \
    if (!stoke_status_.ok()) return stoke_status_;         \
  } while (0)

#define STOKE_CONCAT_(a, b) a##b
#define STOKE_CONCAT(a, b) STOKE_CONCAT_(a, b)
// STOKE_ASSIGN(auto x, function_returning_Result()): binds the value or returns the failure.
#define STOKE_ASSIGN(lhs, expr) STOKE_ASSIGN_(lhs, expr, STOKE_CONCAT(stoke_result_, __LINE__))
#define STOKE_ASSIGN_(lhs, expr, tmp)       \
  auto tmp = (expr);                        \
  if (!tmp.ok()) return tmp.status();       \
  lhs = std::move(tmp).value()
