// The table in one thread: layout, estimates, inverse queries, correction, bad input.
#include "check.hpp"
#include "core/profile_table/table.hpp"
#include "profile_table_sample.hpp"

using namespace festina;

namespace {

const ProfileTable table{sample::spec(2)};
const ProfileView view = table.view();

void every_cell_is_where_its_axes_say() {
  for (int m = 0; m < view.models(); ++m) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      std::size_t index = view.grid(m, phase).first_cell;
      for (const float work0 : view.knots(view.grid(m, phase).work0)) {
        for (const float work1 : view.knots(view.grid(m, phase).work1)) {
          for (int rung = 0; rung < view.rungs(); ++rung) {
            for (int clock = 0; clock < view.clocks(); ++clock, ++index) {
              const double expected =
                  sample::latency_ms(work0, work1, view.sms(rung), view.clock_mhz(clock));
              CHECK_EQ(view.cell(index).latency_ms, expected);
              CHECK_NEAR(view.estimate(m, phase, rung, clock, work0, work1).latency_ms, expected,
                         1e-6);
            }
          }
        }
      }
    }
  }
}

void a_figure_linear_in_work_is_interpolated_exactly() {
  for (float work0 = 16; work0 <= 1024; work0 += 13) {
    for (float work1 = 0; work1 <= 2048; work1 += 97) {
      const Estimate e = view.estimate(0, Phase::prefill, 1, 2, work0, work1);
      CHECK_NEAR(e.latency_ms, sample::latency_ms(work0, work1, 40, 2000), 1e-5);
      CHECK_NEAR(e.power_w, sample::power_w(40, 2000), 1e-5);
      CHECK_EQ(e.spread, 0.02F);
      CHECK_EQ(e.bytes_per_s, 1e11F);
    }
  }
}

void work_beyond_the_axes_is_never_underestimated() {
  const auto latency = [](float work0, float work1) {
    return view.estimate(0, Phase::prefill, 0, 0, work0, work1).latency_ms;
  };
  CHECK_EQ(latency(1, 0), latency(16, 0));
  CHECK_NEAR(latency(4096, 0), 4 * latency(1024, 0), 1e-6);
  CHECK_NEAR(latency(1024, 4096), 2 * latency(1024, 2048), 1e-6);
  CHECK_EQ(latency(std::nanf(""), 0), latency(16, 0));
}

void inverse_queries_agree_with_a_scan() {
  for (float deadline_ms = 0.5F; deadline_ms < 60; deadline_ms *= 1.3F) {
    const WorkPoint w = view.locate(0, Phase::prefill, 300, 700);
    Choice best;
    for (int clock = 0; clock < view.clocks(); ++clock) {
      int least = -1;
      for (int rung = view.rungs() - 1; rung >= 0; --rung) {
        const Cost c = view.cost(w, rung, clock);
        if (c.latency_ms > deadline_ms) continue;
        least = rung;
        const float energy_mj = c.latency_ms * (c.power_w + view.idle_w(clock));
        if (energy_mj < best.energy_mj) best = {rung, clock, energy_mj, c.latency_ms};
      }
      CHECK_EQ(view.least_rung(w, clock, deadline_ms), least);
    }
    const Choice found = view.cheapest(w, deadline_ms);
    CHECK_EQ(found.rung, best.rung);
    CHECK_EQ(found.clock, best.clock);
    CHECK_EQ(found.energy_mj, best.energy_mj);
  }
}

void axes_are_searched_from_below() {
  CHECK_EQ(view.rung_within(19), -1);
  CHECK_EQ(view.rung_within(20), 0);
  CHECK_EQ(view.rung_within(99), 2);
  CHECK_EQ(view.clock_within(5000), 2);
  CHECK_EQ(view.find("model-1"), 1);
  CHECK_EQ(view.find("model"), -1);
}

void correction_heals_a_wrong_profile_within_its_bounds() {
  ProfileTable wrong(sample::spec());
  const auto at = [&] { return wrong.view().estimate(0, Phase::decode, 2, 1, 7, 300); };
  const float before = at().latency_ms;
  for (int i = 0; i < 200; ++i) {
    wrong.correct({0, Phase::decode, 2, 1, 7, 300, 1.7 * before, 2 * sample::power_w(80, 1000)});
  }
  CHECK_NEAR(at().latency_ms, 1.7 * before, 0.01);
  CHECK_NEAR(at().power_w, 2 * sample::power_w(80, 1000), 0.01);
  CHECK(at().spread < 0.1F);
  for (int i = 0; i < 500; ++i) {
    wrong.correct({0, Phase::decode, 2, 1, 7, 300, 1000.0 * before, std::nullopt});
  }
  CHECK_NEAR(at().latency_ms, 4 * before, 1e-5);
}

void bad_input_is_named() {
  const auto field = [](auto change) {
    TableSpec spec = sample::spec();
    change(spec);
    try {
      const ProfileTable made(spec);
    } catch (const ProfileError& error) {
      return error.field;
    }
    return std::string("accepted");
  };
  CHECK_EQ(field([](TableSpec&) {}), "accepted");
  CHECK_EQ(field([](TableSpec& s) { s.cells.pop_back(); }), "cells");
  CHECK_EQ(field([](TableSpec& s) { s.cells[5].latency_ms = 0; }), "cells[5].latency_ms");
  CHECK_EQ(field([](TableSpec& s) { s.cells[5].power_w = -1; }), "cells[5].power_w");
  CHECK_EQ(field([](TableSpec& s) { std::swap(s.sms[0], s.sms[1]); }), "sms");
  CHECK_EQ(field([](TableSpec& s) { s.idle_w.pop_back(); }), "idle_w");
  CHECK_EQ(field([](TableSpec& s) { s.models[0].work1[1] = {8, 8}; }),
           "models.model-0.decode.work1");
  ProfileTable good(sample::spec());
  CHECK_THROWS(good.correct({0, Phase::decode, 9, 0, 1, 1, 1.0, {}}), ProfileError);
  CHECK_THROWS(good.correct({0, Phase::decode, 0, 0, 1, 1, -1.0, {}}), ProfileError);
}

}  // namespace

int main() {
  every_cell_is_where_its_axes_say();
  a_figure_linear_in_work_is_interpolated_exactly();
  work_beyond_the_axes_is_never_underestimated();
  inverse_queries_agree_with_a_scan();
  axes_are_searched_from_below();
  correction_heals_a_wrong_profile_within_its_bounds();
  bad_input_is_named();
}
