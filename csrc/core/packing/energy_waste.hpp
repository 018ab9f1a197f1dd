#pragma once
#include <algorithm>
#include <span>
#include <vector>

// What co-located models waste because a GPU has one clock (paper, section 3.5.1): power grows as
// the cube of the clock, and the highest clock that a resident prefers is everybody's.
namespace festina::packing {

// What one model needs of a GPU.
struct Item {
  double sms;
  double bytes;
  double clock_mhz;  // that it prefers
  double time_ms;    // for which it executes
};

inline double cube(double x) { return x * x * x; }

// Clock of a GPU that holds these items; 0 where there are none.
inline double clock_of(std::span<const Item> items, std::span<const int> held) {
  double clock_mhz = 0;
  for (const int i : held) {
    clock_mhz = std::max(clock_mhz, items[static_cast<std::size_t>(i)].clock_mhz);
  }
  return clock_mhz;
}

// Equation 5, of one GPU: sum of t (F_g^3 - F_l^3).
inline double energy_waste(std::span<const Item> items, std::span<const int> held) {
  const double shared = cube(clock_of(items, held));
  double sum = 0;
  for (const int i : held) {
    const Item& item = items[static_cast<std::size_t>(i)];
    sum += item.time_ms * (shared - cube(item.clock_mhz));
  }
  return sum;
}

// Equation 7, of all GPUs: waste over what the items would draw at their own clocks. 0 where
// nothing runs.
inline double energy_waste_ratio(std::span<const Item> items,
                                 const std::vector<std::vector<int>>& bins) {
  double waste = 0, optimal = 0;
  for (const std::vector<int>& held : bins) waste += energy_waste(items, held);
  for (const Item& item : items) optimal += item.time_ms * cube(item.clock_mhz);
  return optimal > 0 ? waste / optimal : 0;
}

}  // namespace festina::packing
