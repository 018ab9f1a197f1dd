#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "check.hpp"
#include "local_sample.hpp"

// When decodes run: latest starts, pacing, deadlines that were missed.
namespace {

using namespace sample;

void latest_starts_are_the_best_of_all_orders() {
  std::vector<DecodeGroup> none;
  CHECK_EQ(set_latest_starts(none), kNever);
  Draws random(1);
  for (int round = 0; round < 500; ++round) {
    std::vector<DecodeGroup> groups;
    for (int i = random.below(6); i >= 0; --i) {
      groups.push_back({i, random.between(0, 100), random.between(1, 30)});
    }
    const double best_ms = best_first_start(groups);
    CHECK_NEAR(set_latest_starts(groups), best_ms, 1e-12);
    double following_ms = kNever;
    for (std::size_t i = groups.size(); i-- > 0;) {
      CHECK(groups[i].start_ms + groups[i].latency_ms <= groups[i].due_ms + 1e-9);
      CHECK(groups[i].start_ms + groups[i].latency_ms <= following_ms + 1e-9);
      following_ms = groups[i].start_ms;
    }
  }
}

void missed_deadlines_move_out_by_doubling() {
  CHECK_EQ(rolled_deadline(100, 50, 120), 150.0);
  CHECK_EQ(rolled_deadline(100, 50, 150), 150.0);
  CHECK_EQ(rolled_deadline(100, 50, 151), 200.0);
  CHECK_EQ(rolled_deadline(100, 50, 201), 300.0);
  CHECK_EQ(rolled_deadline(100, 50, 301), 500.0);
  Draws random(2);
  for (int round = 0; round < 500; ++round) {
    const double objective_ms = random.chance(10) ? 0 : random.between(1, 100);
    const double now_ms = random.between(0, 10'000);
    const double due_ms = rolled_deadline(0, objective_ms, now_ms);
    CHECK(due_ms >= now_ms);
    if (now_ms > objective_ms) CHECK(due_ms <= 2 * now_ms + 1);  // no further than it must
  }
}

// Decodes alone wait, and start at the last moment at which none would be late.
void paced_decodes_start_exactly_at_the_latest_start() {
  Draws random(3);
  const Options options;
  Chooser chooser(options);
  for (int round = 0; round < 300; ++round) {
    std::vector<PlainLane> lanes;
    std::vector<DecodeGroup> groups;
    for (int i = random.below(4); i >= 0; --i) {
      lanes.push_back({random.below(3),
                       1 + random.below(64),
                       random.between(10, 4000),
                       random.between(500, 900),
                       random.between(50, 100),
                       {}});
      groups.push_back({0, due_ms(options, lanes.back()), decode_ms(options, lanes.back())});
    }
    const double start_ms = best_first_start(groups);
    const double now_ms = start_ms - random.between(0.01, 100);
    const Choice wait = choose(chooser, options, lanes, 0, false, now_ms);
    CHECK_EQ(wait.lane, kNone);
    CHECK_NEAR(wait.wait_until_ms, start_ms, 1e-12);
    const Choice go = choose(chooser, options, lanes, 0, false, wait.wait_until_ms);
    const auto first = std::min_element(groups.begin(), groups.end(),
                                        [](auto& a, auto& b) { return a.due_ms < b.due_ms; });
    CHECK_EQ(go.lane, static_cast<int>(first - groups.begin()));
    CHECK_EQ(go.decodes, lanes[static_cast<std::size_t>(go.lane)].decodes);
    CHECK(go.chunks.empty());
  }
}

void without_pace_decodes_start_at_once() {
  Options options;
  options.pace = false;
  Chooser chooser(options);
  const std::vector<PlainLane> lanes{{0, 4, 100, 1000, 100, {}}, {1, 2, 100, 900, 100, {}}};
  const Choice choice = choose(chooser, options, lanes, 0, false, 0);
  CHECK_EQ(choice.lane, 1);
  CHECK_EQ(choice.decodes, 2);
  const Choice idle = choose(chooser, options, std::span<const PlainLane>(), 0, true, 0);
  CHECK_EQ(idle.lane, kNone);
  CHECK_EQ(idle.wait_until_ms, kNever);
}

}  // namespace

int main() {
  latest_starts_are_the_best_of_all_orders();
  missed_deadlines_move_out_by_doubling();
  paced_decodes_start_exactly_at_the_latest_start();
  without_pace_decodes_start_at_once();
}
