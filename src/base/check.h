// CHECK and DCHECK: a bug stops the process, in release too, with the place and the condition.
// CHECK is for boundaries; DCHECK, for loops, is compiled only without NDEBUG.
#pragma once

namespace stoke {
// Writes "file:line: CHECK failed: condition" to standard error and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}  // namespace stoke

#define CHECK(condition) ((condition) ? static_cast<void>(0) : ::stoke::check_failed(__FILE__, __LINE__, #condition))
#ifdef NDEBUG
#define DCHECK(condition) static_cast<void>(0)
#else
#define DCHECK(condition) CHECK(condition)
#endif
