#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "core/packing/assignment.hpp"

// Who goes where at the least total cost, where each target takes several: the Hungarian method
// (successive shortest augmenting paths) on targets instead of on their places, which are all
// alike. With few targets this is far less work than one column per place.
namespace festina::packing {

namespace detail {

class Transport {
 public:
  Transport(const Costs& costs, const std::vector<int>& room)
      : costs_(costs),
        room_(room),
        where_(costs.size(), none),
        members_(room.size()),
        shift_(room.size(), std::vector<Shift>(room.size())) {}

  std::vector<int> solve() {
    for (std::size_t row = 0; row < costs_.size(); ++row) add(row);
    std::vector<int> answer(where_.size());
    std::transform(where_.begin(), where_.end(), answer.begin(),
                   [](std::size_t target) { return static_cast<int>(target); });
    return answer;
  }

 private:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

  // The cheapest row to send from one target to another, and what that adds to the total.
  struct Shift {
    double cost = std::numeric_limits<double>::infinity();
    std::size_t row = none;
  };

  // Adds `row` along the cheapest path to a target that has room.
  void add(std::size_t row) {
    const std::size_t targets = room_.size();
    std::vector<double> dist = costs_[row];
    std::vector<std::size_t> from(targets, none);
    bool better = true;
    for (std::size_t round = 0; better && round < targets; ++round) {
      better = false;
      for (std::size_t j = 0; j < targets; ++j) {
        if (members_[j].empty()) continue;
        for (std::size_t k = 0; k < targets; ++k) {
          const double through = dist[j] + shift_[j][k].cost;
          if (k == j || !(through < dist[k] - tolerance(dist[k]))) continue;
          dist[k] = through;
          from[k] = j;
          better = true;
        }
      }
    }
    std::size_t at = none;
    for (std::size_t k = 0; k < targets; ++k) {
      const bool free = members_[k].size() < static_cast<std::size_t>(room_[k]);
      if (free && (at == none || dist[k] < dist[at])) at = k;
    }
    for (std::size_t hops = 0; from[at] != none && hops < targets; ++hops) {
      const std::size_t before = from[at];
      const std::size_t moved = shift_[before][at].row;
      leave(moved, before);
      enter(moved, at);
      at = before;
    }
    enter(row, at);
  }

  static double tolerance(double value) { return 1e-12 * (value < 0 ? -value : value); }

  void enter(std::size_t row, std::size_t target) {
    where_[row] = target;
    members_[target].push_back(row);
    for (std::size_t k = 0; k < room_.size(); ++k) consider(row, target, k);
  }

  void leave(std::size_t row, std::size_t target) {
    auto& members = members_[target];
    members.erase(std::find(members.begin(), members.end(), row));
    for (std::size_t k = 0; k < room_.size(); ++k) {
      if (shift_[target][k].row != row) continue;
      shift_[target][k] = {};
      for (const std::size_t other : members) consider(other, target, k);
    }
  }

  void consider(std::size_t row, std::size_t target, std::size_t k) {
    const double cost = costs_[row][k] - costs_[row][target];
    if (cost < shift_[target][k].cost) shift_[target][k] = {cost, row};
  }

  const Costs& costs_;
  const std::vector<int>& room_;
  std::vector<std::size_t> where_;
  std::vector<std::vector<std::size_t>> members_;
  std::vector<std::vector<Shift>> shift_;
};

}  // namespace detail

// The target of each row so that the costs [row][target] add up to the least and no target gets
// more rows than it has room for. There is room for all rows.
inline std::vector<int> transport(const Costs& costs, const std::vector<int>& room) {
  return detail::Transport(costs, room).solve();
}

}  // namespace festina::packing
