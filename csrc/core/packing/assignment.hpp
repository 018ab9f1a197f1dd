#pragma once
#include <cstddef>
#include <limits>
#include <vector>

// Who goes where at the least total cost: the Hungarian algorithm (Kuhn 1955, in the shortest-path
// form of Jonker and Volgenant 1987), O(rows^2 x columns).
namespace festina::packing {

using Costs = std::vector<std::vector<double>>;  // [row][column], finite

namespace detail {

// Potentials and the matching found so far; index 0 of each is a dummy.
struct Matching {
  Matching(std::size_t rows, std::size_t columns)
      : row_price(rows + 1, 0.0), column_price(columns + 1, 0.0), row_of(columns + 1, 0) {}

  std::vector<double> row_price;
  std::vector<double> column_price;
  std::vector<std::size_t> row_of;

  // Adds `row` along the cheapest augmenting path.
  void add(const Costs& costs, std::size_t row) {
    const std::size_t columns = row_of.size() - 1;
    std::vector<double> least(columns + 1, std::numeric_limits<double>::infinity());
    std::vector<std::size_t> way(columns + 1, 0);
    std::vector<bool> done(columns + 1, false);
    row_of[0] = row;
    std::size_t at = 0;
    do {
      done[at] = true;
      const std::size_t from = row_of[at];
      double step = std::numeric_limits<double>::infinity();
      std::size_t next = 0;
      for (std::size_t j = 1; j <= columns; ++j) {
        if (done[j]) continue;
        const double reduced = costs[from - 1][j - 1] - row_price[from] - column_price[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          way[j] = at;
        }
        if (least[j] < step) {
          step = least[j];
          next = j;
        }
      }
      for (std::size_t j = 0; j <= columns; ++j) {
        if (done[j]) {
          row_price[row_of[j]] += step;
          column_price[j] -= step;
        } else {
          least[j] -= step;
        }
      }
      at = next;
    } while (row_of[at] != 0);
    for (; at != 0; at = way[at]) row_of[at] = row_of[way[at]];
  }
};

}  // namespace detail

// The column of each row, all different, so that the costs add up to the least. There are at least
// as many columns as rows.
inline std::vector<int> assign(const Costs& costs) {
  if (costs.empty()) return {};
  detail::Matching matching(costs.size(), costs.front().size());
  for (std::size_t row = 1; row <= costs.size(); ++row) matching.add(costs, row);
  std::vector<int> column_of(costs.size(), -1);
  for (std::size_t j = 1; j < matching.row_of.size(); ++j) {
    if (matching.row_of[j] > 0) column_of[matching.row_of[j] - 1] = static_cast<int>(j - 1);
  }
  return column_of;
}

}  // namespace festina::packing
