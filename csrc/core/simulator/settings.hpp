#pragma once
#include <cmath>
#include <map>
#include <string>

#include "core/simulator/types.hpp"

namespace festina::simulator {

// Named numbers from outside. Every one must be taken, so that a misspelt name is an error.
class Settings {
 public:
  explicit Settings(std::map<std::string, double> values) : values_(std::move(values)) {}

  // Throws BadInput if the number is below `least` or infinite.
  void take(const char* name, double& value, double least = 0) {
    const auto found = values_.find(name);
    if (found == values_.end()) return;
    value = found->second;
    if (!std::isfinite(value) || value < least) {
      throw BadInput(std::string("options.") + name,
                     "a number, at least " + std::to_string(static_cast<int>(least)));
    }
    values_.erase(found);
  }
  void take(const char* name, bool& value) {
    double number = value ? 1 : 0;
    take(name, number);
    value = number != 0;
  }
  // Throws BadInput if any is left.
  void done(const char* expected) const {
    if (!values_.empty()) throw BadInput("options." + values_.begin()->first, expected);
  }

 private:
  std::map<std::string, double> values_;
};

}  // namespace festina::simulator
