// Status and Result<T> (declared in the public header, since users get them too), and the macros that pass a failure
// on.
#pragma once

#include "base/check.h"
#include "stoke/status.h"

// Returns the failure of `expr` from the enclosing function; otherwise goes on.
#define STOKE_TRY(expr)                            \
  do {                                             \
    ::stoke::Status stoke_status_ = (expr);        \
    if (!stoke_status_.ok()) return stoke_status_; \
  } while (0)

#define STOKE_CONCAT_(a, b) a##b
#define STOKE_CONCAT(a, b) STOKE_CONCAT_(a, b)
// STOKE_ASSIGN(auto x, function_returning_Result()): binds the value or returns the failure.
#define STOKE_ASSIGN(lhs, expr) STOKE_ASSIGN_(lhs, expr, STOKE_CONCAT(stoke_result_, __LINE__))
#define STOKE_ASSIGN_(lhs, expr, tmp) \
  auto tmp = (expr);                  \
  if (!tmp.ok()) return tmp.status(); \
  lhs = std::move(tmp).value()
