#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "core/simulator/types.hpp"

namespace festina::simulator {

// What all GPUs did in one bucket of time, integrated: divide by the bucket's length for means.
struct Bucket {
  double energy_j = 0;
  double awake_ms = 0;      // GPU-milliseconds with a context
  double clock_mhz_ms = 0;  // of the awake ones
  double busy_ms = 0;
};

// Adds up energy and states over time, by kind and by bucket.
class Meter {
 public:
  explicit Meter(double bucket_ms) : bucket_ms_(bucket_ms) {}

  // A GPU drew `power_w` from `from_ms` to `to_ms`.
  void add(double from_ms, double to_ms, double power_w, EnergyKind kind, bool awake,
           double clock_mhz) {
    energy_j_[static_cast<std::size_t>(kind)] += power_w * (to_ms - from_ms) / 1000.0;
    auto index = static_cast<std::size_t>(from_ms / bucket_ms_);
    for (; from_ms < to_ms; ++index) {
      const double end_ms = std::min(to_ms, (static_cast<double>(index) + 1) * bucket_ms_);
      const double part_ms = end_ms - from_ms;
      if (part_ms <= 0) continue;  // rounding put the start on the end of a bucket
      if (index >= buckets_.size()) buckets_.resize(index + 1);
      Bucket& b = buckets_[index];
      b.energy_j += power_w * part_ms / 1000.0;
      if (awake) {
        b.awake_ms += part_ms;
        b.clock_mhz_ms += clock_mhz * part_ms;
      }
      if (kind == EnergyKind::active) b.busy_ms += part_ms;
      from_ms = end_ms;
    }
  }

  double energy_j(EnergyKind kind) const { return energy_j_[static_cast<std::size_t>(kind)]; }
  double total_j() const {
    double sum = 0;
    for (const double part : energy_j_) sum += part;
    return sum;
  }
  const std::vector<Bucket>& buckets() const noexcept { return buckets_; }

 private:
  double bucket_ms_;
  std::array<double, kEnergyKinds> energy_j_{};
  std::vector<Bucket> buckets_;
};

}  // namespace festina::simulator
