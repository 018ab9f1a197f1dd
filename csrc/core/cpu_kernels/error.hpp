#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace festina::cpu {

/// Arguments that a kernel refuses. Thrown before anything is written.
class KernelError : public std::invalid_argument {
 public:
  KernelError(std::string field_name, std::string what_was_expected, const std::string& message)
      : std::invalid_argument(message),
        field(std::move(field_name)),
        expected(std::move(what_was_expected)) {}

  std::string field;
  std::string expected;
};

/// A quantisation or instruction set that is not implemented (here).
class UnsupportedError : public KernelError {
 public:
  using KernelError::KernelError;
};

inline void require(bool ok, const char* field, const char* expected, const char* message) {
  if (!ok) throw KernelError(field, expected, message);
}

}  // namespace festina::cpu
