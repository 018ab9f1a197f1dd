#include <cmath>
#include <vector>

#include "check.hpp"
#include "core/clock/cost.hpp"
#include "core/clock/governor.hpp"
#include "core/clock/planner.hpp"
#include "core/clock/recent.hpp"
#include "core/profile_table/table.hpp"
#include "profile_table_sample.hpp"
#include "random_sample.hpp"

// The clock of a load, by the sample table: 500, 1000 and 2000 MHz at 50, 60 and 90 W idle.
namespace {

using namespace festina::clock;
using festina::local::StepWork;
using sample::Draws;

constexpr double kSwitchMs = 50;

struct Sample {
  festina::ProfileTable table{sample::spec(2)};
  ProfileCost cost{&table.view(), 3, kSwitchMs};
};

ModelLoad decodes(int running, double tbt_ms, int model = 0) {
  ModelLoad m;
  m.model = model;
  m.running = running;
  m.context_mean = 512;
  m.tbt_ms = m.due_ms = tbt_ms;
  return m;
}

// Power and share of time of one model's decodes, by hand.
double power_w(const Sample& s, const ModelLoad& m, int clock, const Options& o) {
  const auto p = s.cost.step(m.model, StepWork{m.running, m.context_mean, 0, 0}, clock);
  return s.cost.idle_w(clock) + p.power_w * p.latency_ms / (m.tbt_ms * (1 - o.margin));
}

void decodes_get_the_clock_of_least_power_that_leaves_time() {
  const Sample s;
  const Options o;
  Planner planner(o);
  Draws random(1);
  int above = 0;
  for (int round = 0; round < 300; ++round) {
    const ModelLoad m = decodes(1 + random.below(16), random.between(1.2, 4));
    const Plan plan = planner.plan(s.cost, {{m}, {}}, random.below(3), 0);
    const auto fits = [&](int clock) {
      const StepWork w{m.running, m.context_mean, 0, 0};
      return s.cost.step(0, w, clock).latency_ms / (m.tbt_ms * (1 - o.margin)) <= o.utilisation;
    };
    CHECK_EQ(plan.fits, fits(2));
    CHECK_NEAR(plan.power_w, power_w(s, m, plan.clock, o), 1e-9);
    if (!plan.fits) continue;
    CHECK(fits(plan.clock));
    CHECK(plan.clock == 0 || !fits(plan.clock - 1) ||
          power_w(s, m, plan.clock - 1, o) > plan.power_w);
    above += plan.clock > 0;
  }
  CHECK(above > 20);
}

void waiting_prompts_are_planned_one_after_the_other_by_deadline() {
  const Sample s;
  Planner planner({});
  const double top_ms = prefill_ms(s.cost, 0, 1024, 0, 2);
  const double mid_ms = prefill_ms(s.cost, 0, 1024, 0, 1);
  const auto fits_at = [&](double first_ms, double second_ms, int clock_now) {
    // Handed over in the wrong order.
    const GpuLoad load{{},
                       {{1, 1, 1024, 0, 0, second_ms / 0.98}, {0, 0, 1024, 0, 0, first_ms / 0.98}}};
    const Plan plan = planner.plan(s.cost, load, clock_now, 0);
    return plan.fits ? plan.clock : -1;
  };
  CHECK_EQ(fits_at(top_ms + 0.01, 2 * top_ms + 0.01, 2), 2);
  CHECK_EQ(fits_at(top_ms - 0.01, 2 * top_ms + 0.01, 2), -1);
  CHECK_EQ(fits_at(top_ms + 0.01, 2 * top_ms - 0.01, 2), -1);
  CHECK_EQ(fits_at(mid_ms + 0.01, 2 * mid_ms + 0.01, 1), 1);
  CHECK_EQ(fits_at(mid_ms + 0.01, 2 * mid_ms + 0.01, 2), 2);  // the switch takes too long
  CHECK_EQ(fits_at(mid_ms + kSwitchMs + 0.01, 2 * mid_ms + kSwitchMs + 0.01, 2), 1);
}

void what_came_of_late_fades() {
  const Sample s;
  Recent recent;
  for (int i = 0; i < 10; ++i) recent.add(s.cost, 0, {100, 0, 500}, 1000, i * 100.0);
  double sum = 0;
  for (int i = 0; i < 10; ++i) sum += std::exp(-i * 0.1) / 1000;
  CHECK_NEAR(recent.per_ms(1000, 900), sum, 1e-12);
  CHECK_NEAR(recent.per_ms(1000, 1900), sum / std::exp(1.0), 1e-12);
  ModelLoad load;
  recent.add(s.cost, 0, {50, 7, 1}, 1000, 900);
  recent.add_to(load, 1000, 900);
  CHECK_EQ(load.hardest.tokens, 50);
  CHECK_EQ(load.hardest.cached, 7);
  for (int i = 0; i < 16; ++i) recent.add(s.cost, 0, {100, 0, 500}, 1000, 1000);
  recent.add_to(load, 1000, 1000);
  CHECK_EQ(load.hardest.tokens, 100);  // only the last 16 are remembered
}

void up_at_once_and_down_after_a_dwell() {
  const Sample s;
  Planner planner({});
  Governor governor;
  const GpuLoad busy{{decodes(16, 1.6)}, {}};
  const GpuLoad calm{{decodes(1, 100)}, {}};
  CHECK(governor.due(0));
  CHECK(!governor.due(99));
  governor.arrived();
  CHECK(governor.due(99));
  const int high = governor.decide(planner, s.cost, busy, 0, 0, 100);
  CHECK(high > 0);
  CHECK_EQ(governor.decide(planner, s.cost, calm, high, high, 1099), high);
  GpuLoad due = calm;
  due.models[0].due_ms = 1101 + 1.1;  // its step must start at once
  CHECK_EQ(governor.decide(planner, s.cost, due, high, high, 1101), high);
  due.models[0].due_ms = 1201;
  CHECK_EQ(governor.decide(planner, s.cost, due, high, high, 1101), 0);
  CHECK_EQ(governor.decide(planner, s.cost, busy, 0, 0, 1102), high);
}

void options_out_of_range_are_refused() {
  const auto refused = [](auto change) {
    Options o;
    change(o);
    CHECK_THROWS(Planner(o), festina::BadInput);
  };
  refused([](Options& o) { o.utilisation = 1; });
  refused([](Options& o) { o.utilisation = 0; });
  refused([](Options& o) { o.margin = 1; });
  refused([](Options& o) { o.memory_ms = 0; });
  refused([](Options& o) { o.dwell_ms = -1; });
}

}  // namespace

int main() {
  decodes_get_the_clock_of_least_power_that_leaves_time();
  waiting_prompts_are_planned_one_after_the_other_by_deadline();
  what_came_of_late_fades();
  up_at_once_and_down_after_a_dwell();
  options_out_of_range_are_refused();
}
