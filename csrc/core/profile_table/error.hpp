#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace festina {

// A profile table, or the region it should lie in, is not as it must be. Python sees
// festina.errors.ProfileError.
class ProfileError : public std::runtime_error {
 public:
  ProfileError(std::string field_name, const std::string& message, std::string expectation = "")
      : std::runtime_error(message),
        field(std::move(field_name)),
        expected(std::move(expectation)) {}

  std::string field;
  std::string expected;
};

}  // namespace festina
