#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace festina::simulator {

// Counts over logarithmic buckets, 1/16 of an octave each (4.4 %), from 2^-4 ms to 2^24 ms.
class Histogram {
 public:
  static constexpr int kPerOctave = 16;
  static constexpr int kOctaveFirst = -4;
  static constexpr int kBuckets = 28 * kPerOctave;

  Histogram() : counts_(kBuckets, 0) {}

  void add(double value_ms) {
    // All members of a batch have the same gap: its bucket is found once.
    if (value_ms != last_ms_) {
      last_ms_ = value_ms;
      last_bucket_ = bucket(value_ms);
    }
    ++counts_[last_bucket_];
  }
  const std::vector<std::uint64_t>& counts() const noexcept { return counts_; }

  // Lower edge of bucket i; edge kBuckets closes the last.
  static double edge_ms(int i) {
    return std::exp2(kOctaveFirst + static_cast<double>(i) / kPerOctave);
  }

 private:
  static std::size_t bucket(double value_ms) {
    const double at = (std::log2(std::max(value_ms, 1e-9)) - kOctaveFirst) * kPerOctave;
    return static_cast<std::size_t>(std::clamp(at, 0.0, kBuckets - 1.0));
  }
  std::vector<std::uint64_t> counts_;
  double last_ms_ = -1;
  std::size_t last_bucket_ = 0;
};

}  // namespace festina::simulator
