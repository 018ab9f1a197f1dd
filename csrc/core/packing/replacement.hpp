#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core/packing/best_fit.hpp"
#include "core/packing/energy_waste.hpp"

// Which models share a GPU, on as few GPUs as will do (paper, section 3.5.2 and appendix E,
// algorithm 1).
namespace festina::packing {

// What one GPU may be filled with, its reserve taken off.
struct Capacity {
  double sms;
  double bytes;
};

// Phase two: a lower bound of the GPUs needed, each resource packed for itself.
inline int gpus_needed(std::span<const Item> items, const Capacity& capacity) {
  std::vector<double> sms, bytes;
  for (const Item& item : items) {
    sms.push_back(item.sms);
    bytes.push_back(item.bytes);
  }
  return std::max(best_fit_decreasing(sms, capacity.sms),
                  best_fit_decreasing(bytes, capacity.bytes));
}

// Phase three. An empty GPU can take any clock, so that it is nearest to every model; where the
// text and the algorithm differ, the text counts: all GPUs are tried before another is opened.
class Replacement {
 public:
  Replacement(std::span<const Item> items, const Capacity& capacity)
      : items_(items), capacity_(capacity) {}

  // The items of each GPU; at least `gpus` of them, more where the items do not fit together.
  std::vector<std::vector<int>> place(int gpus) {
    bins_.assign(static_cast<std::size_t>(gpus), {});
    std::vector<int> order(items_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [this](int a, int b) { return item(a).clock_mhz < item(b).clock_mhz; });
    for (const int i : order) place_one(i);
    return std::move(bins_);
  }

 private:
  using Bin = std::vector<int>;

  const Item& item(int i) const { return items_[static_cast<std::size_t>(i)]; }

  double distance(const Bin& bin, int i) const {
    return bin.empty() ? 0 : std::abs(clock_of(items_, bin) - item(i).clock_mhz);
  }

  // An item above the capacity fits an empty GPU: there is nothing better.
  bool fits(const Bin& bin, int i) const {
    double sms = item(i).sms, bytes = item(i).bytes;
    for (const int held : bin) {
      sms += item(held).sms;
      bytes += item(held).bytes;
    }
    return bin.empty() || (sms <= capacity_.sms && bytes <= capacity_.bytes);
  }

  void place_one(int i) {
    std::vector<std::size_t> near(bins_.size());
    std::iota(near.begin(), near.end(), std::size_t{0});
    std::stable_sort(near.begin(), near.end(), [this, i](std::size_t a, std::size_t b) {
      return distance(bins_[a], i) < distance(bins_[b], i);
    });
    if (!near.empty() && fits(bins_[near[0]], i)) return bins_[near[0]].push_back(i);
    if (near.size() > 1 && swapped(bins_[near[0]], bins_[near[1]], i)) return;
    for (std::size_t k = 1; k < near.size(); ++k) {
      if (fits(bins_[near[k]], i)) return bins_[near[k]].push_back(i);
    }
    bins_.push_back({i});
  }

  // The target's resident of the lowest clock makes way, if that fits and wastes less.
  bool swapped(Bin& target, Bin& candidate, int i) const {
    const auto out = std::min_element(target.begin(), target.end(), [this](int a, int b) {
      return item(a).clock_mhz < item(b).clock_mhz;
    });
    Bin joined = target, left = target, taken = candidate;
    joined.push_back(i);
    left.erase(left.begin() + (out - target.begin()));
    if (!fits(left, i) || !fits(candidate, *out)) return false;
    left.push_back(i);
    taken.push_back(*out);
    const double now = energy_waste(items_, joined) + energy_waste(items_, candidate);
    const double then = energy_waste(items_, left) + energy_waste(items_, taken);
    if (then >= now) return false;
    target = std::move(left);
    candidate = std::move(taken);
    return true;
  }

  std::span<const Item> items_;
  Capacity capacity_;
  std::vector<Bin> bins_;
};

}  // namespace festina::packing
