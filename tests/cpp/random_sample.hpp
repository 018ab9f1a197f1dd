#pragma once
#include <cstdint>

namespace sample {

// The same numbers on every machine.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed) {}

  int below(int limit) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int>((state_ >> 33) % static_cast<std::uint64_t>(limit));
  }
  // From `low` to `high`, in thousandths of the way.
  double between(double low, double high) { return low + (high - low) * below(1001) / 1000; }
  bool chance(int percent) { return below(100) < percent; }

 private:
  std::uint64_t state_;
};

}  // namespace sample
