#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace festina {

// An argument is out of range. Python sees festina.errors.BadRequestError.
class BadInput : public std::runtime_error {
 public:
  BadInput(std::string field, std::string expected)
      : std::runtime_error("is out of range"),
        field_(std::move(field)),
        expected_(std::move(expected)) {}
  const std::string& field() const noexcept { return field_; }
  const std::string& expected() const noexcept { return expected_; }

 private:
  std::string field_;
  std::string expected_;
};

}  // namespace festina
