#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace festina::simulator {

// A policy asked a GPU for what no GPU can do. Python sees festina.errors.SimulationError.
class Misuse : public std::logic_error {
 public:
  Misuse(std::string field, std::string expected)
      : std::logic_error("a policy asked for what no GPU can do"),
        field_(std::move(field)),
        expected_(std::move(expected)) {}
  const std::string& field() const noexcept { return field_; }
  const std::string& expected() const noexcept { return expected_; }

 private:
  std::string field_;
  std::string expected_;
};

}  // namespace festina::simulator
