// Status and Result<T>: how expected failures travel in stoke.
//
// An expected failure (a bad file, a full disk, a model that does not fit) is a value with one line of text that says
// what, where and what to do. A bug stops the process. No exception crosses this interface.
// Thread role: any. Ownership: values.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace stoke {

// Writes "file:line: CHECK failed: condition" to standard error and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);

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
  // Control characters become \xNN: names out of files and arguments stay on one line of a terminal or a log, and
  // cannot drive either.
  Status(Code code, std::string message);

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same failure with "context: " put before its text.
  Status with(const std::string& context) const { return ok() ? *this : Status(code_, context + ": " + message_); }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status ok_status() { return Status(); }

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  // Requires: !status.ok().
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    require(!status_.ok(), __LINE__, "a Result without a value says why");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  // Requires: ok().
  T& value() & {
    require(ok(), __LINE__, "Result::ok()");
    return *value_;
  }
  const T& value() const& {
    require(ok(), __LINE__, "Result::ok()");
    return *value_;
  }
  T&& value() && {
    require(ok(), __LINE__, "Result::ok()");
    return std::move(*value_);
  }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  static void require(bool condition, int line, const char* what) {
    if (!condition) check_failed(__FILE__, line, what);
  }

  std::optional<T> value_;
  Status status_;
};

}  // namespace stoke
