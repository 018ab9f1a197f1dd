#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "check.hpp"
#include "core/packing/assignment.hpp"
#include "core/packing/best_fit.hpp"
#include "core/packing/energy_waste.hpp"
#include "core/packing/replacement.hpp"
#include "core/packing/transport.hpp"

namespace {

using namespace festina::packing;
using Bins = std::vector<std::vector<int>>;

class Random {
 public:
  int below(int limit) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int>((state_ >> 33) % static_cast<std::uint64_t>(limit));
  }

 private:
  std::uint64_t state_ = 7;
};

void best_fit_fills_the_fullest_bin_that_has_room() {
  CHECK_EQ(best_fit_decreasing({}, 10), 0);
  const std::vector<double> perfect{4, 6, 3, 7, 5, 5};
  CHECK_EQ(best_fit_decreasing(perfect, 10), 3);
  const std::vector<double> halves{6, 6, 6, 4};
  CHECK_EQ(best_fit_decreasing(halves, 10), 3);
  const std::vector<double> oversize{12, 1, 9};
  CHECK_EQ(best_fit_decreasing(oversize, 10), 2);
}

// Never fewer bins than the sum needs; at most 11/9 of the best plus one bin (Johnson 1973).
void best_fit_is_near_the_bound() {
  Random random;
  for (int round = 0; round < 200; ++round) {
    std::vector<double> sizes;
    for (int i = random.below(30); i >= 0; --i) sizes.push_back(1 + random.below(50));
    const double sum = std::accumulate(sizes.begin(), sizes.end(), 0.0);
    const int bins = best_fit_decreasing(sizes, 100);
    CHECK(bins * 100.0 >= sum);
    CHECK(bins <= static_cast<int>(sizes.size()));
    CHECK(bins * 50.0 < sum + 100);  // no two bins are half empty
  }
}

double cost_of(const Costs& costs, const std::vector<int>& columns) {
  double sum = 0;
  for (std::size_t row = 0; row < costs.size(); ++row) {
    sum += costs[row][static_cast<std::size_t>(columns[row])];
  }
  return sum;
}

double least_cost(const Costs& costs) {
  std::vector<int> order(costs.front().size());
  std::iota(order.begin(), order.end(), 0);
  double least = std::numeric_limits<double>::infinity();
  do {
    least = std::min(least, cost_of(costs, order));
  } while (std::next_permutation(order.begin(), order.end()));
  return least;
}

void assignment_costs_least() {
  CHECK(assign({}).empty());
  Random random;
  for (int round = 0; round < 300; ++round) {
    const int columns = 1 + random.below(6);
    const int rows = 1 + random.below(columns);
    Costs costs(static_cast<std::size_t>(rows));
    for (auto& row : costs) {
      for (int j = 0; j < columns; ++j) row.push_back(random.below(20) - 3);
    }
    const std::vector<int> found = assign(costs);
    std::vector<int> distinct = found;
    std::sort(distinct.begin(), distinct.end());
    CHECK(std::adjacent_find(distinct.begin(), distinct.end()) == distinct.end());
    CHECK_EQ(cost_of(costs, found), least_cost(costs));
  }
}

// As the assignment does it with a column for each place.
void places_of_a_target_are_alike() {
  Random random;
  for (int round = 0; round < 300; ++round) {
    const std::size_t targets = 1 + static_cast<std::size_t>(random.below(4));
    std::vector<int> room(targets);
    for (int& places : room) places = random.below(4);
    const int places = std::accumulate(room.begin(), room.end(), 0);
    if (places == 0) continue;
    Costs costs(1 + static_cast<std::size_t>(random.below(places)));
    Costs by_place(costs.size());
    for (std::size_t i = 0; i < costs.size(); ++i) {
      for (std::size_t j = 0; j < targets; ++j) {
        costs[i].push_back(random.below(20) - 3);
        by_place[i].insert(by_place[i].end(), static_cast<std::size_t>(room[j]), costs[i][j]);
      }
    }
    const std::vector<int> found = transport(costs, room);
    for (std::size_t j = 0; j < targets; ++j) {
      CHECK(std::count(found.begin(), found.end(), static_cast<int>(j)) <= room[j]);
    }
    CHECK_EQ(cost_of(costs, found), cost_of(by_place, assign(by_place)));
  }
}

void waste_is_what_the_common_clock_adds() {
  const std::vector<Item> items{{1, 1, 2, 10}, {1, 1, 1, 5}};
  CHECK_EQ(energy_waste(items, std::vector<int>{0}), 0.0);
  CHECK_EQ(energy_waste(items, std::vector<int>{0, 1}), 5.0 * (8 - 1));
  CHECK_EQ(energy_waste_ratio(items, Bins{{0}, {1}}), 0.0);
  CHECK_NEAR(energy_waste_ratio(items, Bins{{0, 1}}), 35.0 / 85.0, 1e-12);
  CHECK_EQ(energy_waste_ratio({}, Bins{}), 0.0);
}

void models_join_the_gpu_of_the_nearest_clock() {
  const std::vector<Item> items{{1, 1, 1500, 1}, {1, 1, 800, 1}, {1, 1, 850, 1}, {1, 1, 1450, 1}};
  const Bins bins = Replacement(items, {10, 10}).place(2);
  // The lowest clocks open the GPUs, the others follow the nearest.
  CHECK((bins == Bins{{1}, {2, 3, 0}}));
}

// The running example of appendix E: the resident of the lowest clock makes way.
void a_resident_makes_way_where_that_wastes_less() {
  const std::vector<Item> items{{4, 4, 800, 1}, {6, 6, 1000, 1}, {4, 4, 1100, 1}, {6, 6, 1200, 1}};
  // 800 -> first, 1000 -> second, 1100 -> second, which is then full: 1000 would have to make way,
  // for 1200, and fits with 800.
  const Bins bins = Replacement(items, {10, 10}).place(2);
  CHECK((bins == Bins{{0, 1}, {2, 3}}));
}

// Separate packings of two resources may need fewer GPUs than both together.
void another_gpu_is_opened_where_nothing_fits() {
  const std::vector<Item> items{{6, 3, 900, 1}, {4, 8, 900, 1}, {6, 7, 900, 1}, {4, 2, 900, 1}};
  const Capacity capacity{10, 10};
  CHECK_EQ(gpus_needed(items, capacity), 2);
  const Bins bins = Replacement(items, capacity).place(2);
  CHECK_EQ(bins.size(), std::size_t{3});
  const std::vector<Item> huge{{99, 99, 900, 1}};
  CHECK_EQ(Replacement(huge, capacity).place(1).size(), std::size_t{1});
}

void every_model_has_one_gpu_with_room() {
  Random random;
  const Capacity capacity{100, 100};
  for (int round = 0; round < 500; ++round) {
    std::vector<Item> items;
    for (int i = random.below(24); i >= 0; --i) {
      items.push_back({1.0 + random.below(60), 1.0 + random.below(60), 700.0 + random.below(1200),
                       1.0 + random.below(100)});
    }
    const Bins bins = Replacement(items, capacity).place(gpus_needed(items, capacity));
    std::vector<int> seen(items.size(), 0);
    for (const auto& held : bins) {
      double sms = 0, bytes = 0;
      for (const int i : held) {
        ++seen[static_cast<std::size_t>(i)];
        sms += items[static_cast<std::size_t>(i)].sms;
        bytes += items[static_cast<std::size_t>(i)].bytes;
      }
      CHECK(sms <= capacity.sms);
      CHECK(bytes <= capacity.bytes);
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
    CHECK(energy_waste_ratio(items, bins) >= 0);
  }
}

}  // namespace

int main() {
  best_fit_fills_the_fullest_bin_that_has_room();
  best_fit_is_near_the_bound();
  assignment_costs_least();
  places_of_a_target_are_alike();
  waste_is_what_the_common_clock_adds();
  models_join_the_gpu_of_the_nearest_clock();
  a_resident_makes_way_where_that_wastes_less();
  another_gpu_is_opened_where_nothing_fits();
  every_model_has_one_gpu_with_room();
}
