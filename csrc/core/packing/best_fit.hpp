#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

// How many GPUs a set of demands needs on one resource (paper, appendix E, algorithm 1, lines 6-8).
namespace festina::packing {

// Bins that best-fit decreasing opens for `sizes`: each item, the largest first, goes into the
// fullest bin that still has room. An item above the capacity has a bin of its own.
inline int best_fit_decreasing(std::span<const double> sizes, double capacity) {
  std::vector<double> order(sizes.begin(), sizes.end());
  std::sort(order.begin(), order.end(), std::greater<>());
  std::vector<double> room;
  for (const double size : order) {
    auto best = room.end();
    for (auto bin = room.begin(); bin != room.end(); ++bin) {
      if (*bin >= size && (best == room.end() || *bin < *best)) best = bin;
    }
    if (best == room.end()) {
      room.push_back(capacity - size);
    } else {
      *best -= size;
    }
  }
  return static_cast<int>(room.size());
}

}  // namespace festina::packing
