#include <cstddef>
#include <numeric>
#include <vector>

#include "check.hpp"
#include "random_sample.hpp"
#include "simulator_sample.hpp"

// Events, the meter, and the physics of steps on simulated GPUs.
namespace {

using namespace sample;

void events_come_by_time_and_then_in_the_order_of_calls() {
  Draws random(1);
  Events events;
  for (int i = 0; i < 1000; ++i) events.push(random.below(20), EventKind::timer, i);
  double at_ms = 0;
  int last = -1;
  for (int i = 0; i < 1000; ++i) {
    CHECK(!events.empty());
    const Event e = events.pop();
    CHECK(e.at_ms >= at_ms);
    if (e.at_ms > at_ms) last = -1;
    CHECK(e.subject > last);
    at_ms = e.at_ms;
    last = e.subject;
  }
  CHECK(events.empty());
}

void the_meters_parts_and_buckets_add_up() {
  Draws random(2);
  Meter meter(70);
  double at_ms = 0, joules = 0, awake_ms = 0, busy_ms = 0;
  for (int i = 0; i < 500; ++i) {
    const double to_ms = at_ms + random.between(0, 300);
    const double power_w = random.between(10, 700);
    const auto kind = static_cast<EnergyKind>(random.below(static_cast<int>(kEnergyKinds)));
    const bool awake = kind != EnergyKind::parked;
    meter.add(at_ms, to_ms, power_w, kind, awake, 1000);
    joules += power_w * (to_ms - at_ms) / 1000;
    if (awake) awake_ms += to_ms - at_ms;
    if (kind == EnergyKind::active) busy_ms += to_ms - at_ms;
    at_ms = to_ms;
  }
  Bucket all;
  for (const Bucket& b : meter.buckets()) {
    CHECK(b.awake_ms <= 70 + 1e-9);
    all.energy_j += b.energy_j;
    all.awake_ms += b.awake_ms;
    all.clock_mhz_ms += b.clock_mhz_ms;
    all.busy_ms += b.busy_ms;
  }
  CHECK_NEAR(meter.total_j(), joules, 1e-12);
  CHECK_NEAR(all.energy_j, joules, 1e-9);
  CHECK_NEAR(all.awake_ms, awake_ms, 1e-9);
  CHECK_NEAR(all.clock_mhz_ms, awake_ms * 1000, 1e-9);
  CHECK_NEAR(all.busy_ms, busy_ms, 1e-9);
  CHECK_EQ(meter.buckets().size(), static_cast<std::size_t>(at_ms / 70) + 1);
}

void a_step_alone_takes_and_draws_what_the_table_says() {
  World world(1, {request(50, 0, 256, 3)});
  Script script;
  world.run(script);
  const Request& q = world.cluster.request(0);
  const Price p = world.prefill(256), first = world.decode(1, 256), second = world.decode(1, 257);
  CHECK_NEAR(q.first_ms, 50 + p.latency_ms, 1e-12);
  CHECK_NEAR(q.last_ms - q.first_ms, first.latency_ms + second.latency_ms, 1e-9);
  constexpr double kIdleW = 90;  // at the top clock
  double joules = 0;
  for (const Price& step : {p, first, second}) {
    joules += step.latency_ms * (step.power_w + kIdleW) / 1000;
  }
  CHECK_NEAR(q.energy_j, joules, 1e-9);
  const Meter& meter = world.cluster.meter();
  CHECK_NEAR(meter.energy_j(EnergyKind::active), joules, 1e-9);
  const double idle_ms = world.cluster.end_ms() - (q.last_ms - 50);
  CHECK_NEAR(meter.energy_j(EnergyKind::idle), idle_ms * kIdleW / 1000, 1e-9);
  CHECK_NEAR(meter.total_j(), joules + idle_ms * kIdleW / 1000, 1e-9);
}

// Two prompts side by side, the first to end leaving the other alone. Returns when they ended.
std::pair<double, double> two_side_by_side(const Device& d, double& active_j) {
  World world(2, {request(0, 0, 64, 1), request(0, 1, 1024, 1)}, d);
  Script script;
  script.rung = 0;
  world.run(script);
  active_j = world.cluster.meter().energy_j(EnergyKind::active);
  CHECK_NEAR(joules_of_requests(world.cluster), active_j, 1e-9);
  return {world.cluster.request(0).first_ms, world.cluster.request(1).first_ms};
}

void co_runners_share_bandwidth() {
  const World world(2, {});
  const double brief_ms = world.prefill(64, 0).latency_ms;
  const double long_ms = world.prefill(1024, 0).latency_ms;
  double joules = 0;
  const auto plenty = two_side_by_side(device(), joules);
  CHECK_NEAR(plenty.first, brief_ms, 1e-9);
  CHECK_NEAR(plenty.second, long_ms, 1e-9);
  Device scarce = device();
  scarce.bandwidth_bytes_per_s = 1.5e11;  // each wants 1e11
  const double stretch = 2e11 / 1.5e11;
  const auto shared = two_side_by_side(scarce, joules);
  CHECK_NEAR(shared.first, brief_ms * stretch, 1e-6);
  CHECK_NEAR(shared.second, brief_ms * stretch + (long_ms - brief_ms), 1e-6);
}

void co_runners_share_the_power_cap() {
  const World world(2, {});
  const double brief_ms = world.prefill(64, 0).latency_ms;
  const double long_ms = world.prefill(1024, 0).latency_ms;
  const double step_w = world.prefill(64, 0).power_w;  // 90 W, as at idle
  Device capped = device();
  capped.power_cap_w = 90 + 1.5 * step_w;
  const double stretch = 2 / 1.5;
  double joules = 0;
  const auto ends = two_side_by_side(capped, joules);
  CHECK_NEAR(ends.first, brief_ms * stretch, 1e-6);
  CHECK_NEAR(ends.second, brief_ms * stretch + (long_ms - brief_ms), 1e-6);
  CHECK_NEAR(joules * 1000,
             ends.first * capped.power_cap_w + (ends.second - ends.first) * (90 + step_w), 1e-6);
}

void a_clock_switch_amid_a_step_scales_what_is_left_of_it() {
  World world(2, {request(0, 0, 1024, 1), request(0.5, 1, 16, 1)});
  Script script;
  script.on_arrived = [](Cluster& c, int r) {
    if (r == 0) return c.enqueue(c.gpu(0), r);
    c.set_clock(c.gpu(0), 0);
    c.reject(r);
  };
  world.run(script);
  const double fast_ms = world.prefill(1024).latency_ms;
  const double slow_ms = world.prefill(1024, kFull, 0).latency_ms;
  const double switched_ms = 0.5 + device().clock_switch_ms;
  CHECK(switched_ms < fast_ms && fast_ms < slow_ms);
  const double end_ms = switched_ms + (1 - switched_ms / fast_ms) * slow_ms;
  CHECK_NEAR(world.cluster.request(0).first_ms, end_ms, 1e-9);
  CHECK_EQ(world.cluster.counts().clock_switches, 1U);
  const double joules = switched_ms * (world.prefill(1024).power_w + 90) +
                        (end_ms - switched_ms) * (world.prefill(1024, kFull, 0).power_w + 50);
  CHECK_NEAR(world.cluster.request(0).energy_j * 1000, joules, 1e-9);
  CHECK_EQ(world.cluster.belief().factor(0, festina::Phase::prefill), 1.0);  // nothing to learn
}

// What joins the lane meanwhile is no part of a step that runs.
void a_clock_switch_amid_a_step_prices_the_steps_own_work() {
  const World one(1, {});
  const double prefill_ms = one.prefill(1024).latency_ms;
  Device d = device();
  d.clock_switch_ms = 0.1;
  World world(1, {request(0, 0, 1024, 2), request(prefill_ms + 0.3, 0, 16, 1)}, d);
  Script script;
  script.on_arrived = [](Cluster& c, int r) {
    if (r == 0) return c.enqueue(c.gpu(0), r);
    c.join(c.gpu(0), r);
    c.set_clock(c.gpu(0), 0);
  };
  world.run(script);
  const double fast_ms = one.decode(1, 1024).latency_ms;
  const double slow_ms = one.decode(1, 1024, kFull, 0).latency_ms;
  CHECK_NEAR(world.cluster.request(0).last_ms, prefill_ms + 0.4 + (1 - 0.4 / fast_ms) * slow_ms,
             1e-9);
}

void steps_have_no_more_sms_than_the_gpu() {
  World world(2, {request(0, 0, 1024, 1), request(0, 1, 1024, 1)});
  Script script;  // each on all SMs
  CHECK_THROWS((world.run(script), 0), Misuse);
}

void weights_on_their_way_cannot_be_forgotten() {
  World world(1, {});
  Script script;
  script.on_start = [](Cluster& c) {
    c.load(c.gpu(0), 0);
    c.unload(c.gpu(0), 0);
  };
  CHECK_THROWS((world.run(script), 0), Misuse);
}

// Back to the old clock before the switch took place: nothing was switched after all.
void a_clock_switch_can_be_taken_back() {
  World world(2, {request(0, 0, 1024, 1), request(2, 1, 16, 1), request(4, 1, 16, 1)});
  Script script;
  script.on_arrived = [](Cluster& c, int r) {
    if (r == 0) return c.enqueue(c.gpu(0), r);
    c.set_clock(c.gpu(0), r == 1 ? 0 : kTop);
    c.reject(r);
  };
  world.run(script);
  CHECK_NEAR(world.cluster.request(0).first_ms, world.prefill(1024).latency_ms, 1e-9);
  CHECK_EQ(world.cluster.gpu(0).clock, kTop);
}

// After days the clock is coarse beside a short step; that must not keep the step from ending.
void steps_end_however_late_it_is() {
  for (const double at_ms : {1e7, 1e8 + 0.1, 1e9 + 0.3}) {
    std::vector<Request> requests;
    for (int i = 0; i < 50; ++i) requests.push_back(request(at_ms + i * 1.7, 0, 16 + i, 20));
    Setup s = setup(at_ms + 1000);
    s.bucket_ms = 1e7;
    World world(1, requests, device(), s, 1.037);  // no round figures
    Script script;
    world.run(script);
    CHECK_EQ(world.cluster.counts().completed, 50U);
  }
}

void noise_has_a_mean_of_one() {
  std::vector<Request> requests{request(0, 0, 16, 20'000)};
  Setup s = setup(1e6);
  s.noise = 0.3;
  World world(1, requests, device(), s);
  Script script;
  double plain_ms = world.prefill(16).latency_ms;
  for (int i = 0; i < 19'999; ++i) plain_ms += world.decode(1, 16 + i).latency_ms;
  world.run(script);
  CHECK_NEAR(world.cluster.request(0).last_ms, plain_ms, 0.01);
}

void belief_learns_how_the_truth_differs() {
  for (const bool learns : {true, false}) {
    World world(1, {request(0, 0, 256, 100)}, device(), setup(), 1.3, learns);
    Script script;
    world.run(script);
    const double factor = world.cluster.belief().factor(0, festina::Phase::decode);
    if (learns) CHECK_NEAR(factor, 1.3, 0.02);
    if (!learns) CHECK_EQ(factor, 1.0);
  }
}

}  // namespace

int main() {
  events_come_by_time_and_then_in_the_order_of_calls();
  the_meters_parts_and_buckets_add_up();
  a_step_alone_takes_and_draws_what_the_table_says();
  co_runners_share_bandwidth();
  co_runners_share_the_power_cap();
  a_clock_switch_amid_a_step_scales_what_is_left_of_it();
  a_clock_switch_amid_a_step_prices_the_steps_own_work();
  a_clock_switch_can_be_taken_back();
  steps_have_no_more_sms_than_the_gpu();
  weights_on_their_way_cannot_be_forgotten();
  steps_end_however_late_it_is();
  noise_has_a_mean_of_one();
  belief_learns_how_the_truth_differs();
}
