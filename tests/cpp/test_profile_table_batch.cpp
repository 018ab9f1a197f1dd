// Estimates of many steps at once, against the estimates of the same steps one by one.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/profile_table/batch.hpp"
#include "core/profile_table/table.hpp"
#include "profile_table_sample.hpp"

using namespace festina;

namespace {

// Two models whose cells have nothing in common, so that a wrong corner shows.
TableSpec uneven() {
  TableSpec spec = sample::spec(2);
  std::mt19937 random(7);
  std::uniform_real_distribution<double> figure(1, 9);
  for (Cell& cell : spec.cells) {
    cell.latency_ms = figure(random);
    cell.power_w = figure(random);
    cell.spread = static_cast<float>(figure(random));
    cell.bytes_per_s = figure(random);
  }
  return spec;
}

struct Columns {
  std::vector<std::int32_t> rung, clock;
  std::vector<float> work0, work1;

  void add(int r, int c, float w0, float w1) {
    rung.push_back(r);
    clock.push_back(c);
    work0.push_back(w0);
    work1.push_back(w1);
  }
  [[nodiscard]] batch::Steps from(std::size_t first, std::size_t count) const {
    return {count, &rung[first], &clock[first], &work0[first], &work1[first]};
  }
};

// On, between and far beyond the knots of the sample's axes, at every rung and clock.
Columns steps(const ProfileView& view) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> amounts = {-5,  0,   0.5F, 1,    2.5F, 4,    16,   17.5F, 64,
                                      128, 200, 511,  1024, 1025, 2048, 3000, 1e6F,  nan};
  Columns all;
  for (int rung = 0; rung < view.rungs(); ++rung) {
    for (int clock = 0; clock < view.clocks(); ++clock) {
      for (const float work0 : amounts) {
        for (const float work1 : amounts) all.add(rung, clock, work0, work1);
      }
    }
  }
  return all;
}

// Compares every step; `chunk` steps are estimated together.
void compare(const ProfileView& view, const Columns& all, std::size_t chunk) {
  const std::size_t size = all.rung.size();
  std::vector<Estimate> found(size);
  for (int model = 0; model < view.models(); ++model) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      for (std::size_t i = 0; i < size; i += chunk) {
        batch::estimate(view, model, phase, all.from(i, std::min(chunk, size - i)), &found[i]);
      }
      for (std::size_t i = 0; i < size; ++i) {
        const Estimate one =
            view.estimate(model, phase, all.rung[i], all.clock[i], all.work0[i], all.work1[i]);
        CHECK_NEAR(found[i].latency_ms, one.latency_ms, 2e-6);
        CHECK_NEAR(found[i].power_w, one.power_w, 2e-6);
        CHECK_EQ(found[i].spread, one.spread);
        CHECK_EQ(found[i].bytes_per_s, one.bytes_per_s);
      }
    }
  }
}

void a_batch_estimates_what_its_steps_do_alone() {
  const ProfileTable table{uneven()};
  const Columns all = steps(table.view());
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, batch::kSteps}) {
    compare(table.view(), all, chunk);
  }
}

void an_axis_of_one_knot_has_no_corner_above() {
  TableSpec spec = uneven();
  const std::size_t points = spec.sms.size() * spec.clocks_mhz.size();
  std::size_t cells = 0;
  for (ModelSpec& model : spec.models) {
    model.work0 = {{{16, 64, 256}, {4}}};
    model.work1 = {{{512}, {128, 1024}}};
    cells += (3 * 1 + 1 * 2) * points;
  }
  spec.cells.resize(cells);
  const ProfileTable table{spec};
  compare(table.view(), steps(table.view()), batch::kSteps);
}

void no_step_is_no_work() {
  const ProfileTable table{uneven()};
  Estimate untouched{1, 2, 3, 4};
  batch::estimate(table.view(), 0, Phase::decode, {0, nullptr, nullptr, nullptr, nullptr},
                  &untouched);
  CHECK_EQ(untouched.latency_ms, 1.0F);
}

void corrections_show_at_once() {
  ProfileTable table{uneven()};
  table.correct({1, Phase::decode, 2, 1, 7, 300, 12.0, 5.0});
  compare(table.view(), steps(table.view()), batch::kSteps);
}

}  // namespace

int main() {
  a_batch_estimates_what_its_steps_do_alone();
  an_axis_of_one_knot_has_no_corner_above();
  no_step_is_no_work();
  corrections_show_at_once();
}
