#include <array>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "core/simulator/policies/paper_demand.hpp"
#include "core/simulator/policies/summaries.hpp"
#include "profile_table_sample.hpp"

namespace {

using namespace festina;
using namespace festina::simulator;
using festina::consolidation::demand_of;
using festina::consolidation::phase_point;
using festina::consolidation::PhasePoint;

constexpr double kMemory = 64.0 * (1 << 20);
constexpr int kModels = 3;

// Two GPUs, three models of 1 MiB, one request of each; nothing has happened yet.
struct Fixture {
  ProfileTable table{sample::spec(kModels)};
  std::unique_ptr<Cluster> cluster;

  Fixture() {
    Device device{};
    device.memory_bytes = kMemory;
    device.power_cap_w = 1000;
    device.wake_ms = 1500;
    device.load_bytes_per_s = device.storage_bytes_per_s = device.peer_bytes_per_s = 1e9;
    device.bandwidth_bytes_per_s = 1e12;
    Setup setup;
    setup.gpus = 2;
    setup.duration_ms = 1000;
    std::vector<festina::simulator::Deployment> deployments;
    std::vector<festina::simulator::Request> requests(kModels);
    for (int m = 0; m < kModels; ++m) {
      deployments.push_back({"model-" + std::to_string(m), m, {1.0, 1.0}, {1.0, 1.0}});
      auto& q = requests[static_cast<std::size_t>(m)];
      q.model = m;
      q.input_tokens = 256;
      q.cached_tokens = 56;
      q.output_tokens = 10;
      q.ttft_ms = 400;
      q.tbt_ms = 100;
    }
    cluster = std::make_unique<Cluster>(table.view(), table.view(), device, setup, deployments,
                                        requests, false);
  }
};

void an_idle_gpu_offers_all_it_has() {
  Fixture f;
  Cluster& c = *f.cluster;
  c.preload(c.gpu(0), 1);
  const placement::Summary s = summary_of(c, c.gpu(0), Sharing::in_turns);
  CHECK_EQ(s.sms_free, 100);
  CHECK_EQ(s.free_in_ms, 0.0F);
  CHECK_EQ(s.clock_mhz, 2000);
  CHECK_EQ(s.residents.size(), std::size_t{1});
  CHECK_EQ(s.residents[0].model, 1);
  CHECK(s.residents[0].state == placement::Residency::ready);
  CHECK_EQ(s.memory_free_bytes, kMemory);  // idle weights make way
}

void steps_hold_sms_and_full_gpus_say_when_they_open() {
  Fixture f;
  Cluster& c = *f.cluster;
  Gpu& g = c.gpu(0);
  for (int m = 0; m < 2; ++m) {
    c.preload(g, m);
    c.enqueue(g, m);
  }
  c.start(g, *g.lane(0), 0, {{0, 200}}, 0);  // 20 of 100 SMs
  const placement::Summary half = summary_of(c, g, Sharing::side_by_side);
  CHECK_EQ(half.sms_free, 80);
  // The other prompt's model runs nothing: that one is waited for, the first is not.
  const Queue queue = queue_of(c, *g.lane(1), g.clock, 1);
  CHECK_EQ(half.free_in_ms, static_cast<float>(queue.ms));
  CHECK(queue.in_time);
  CHECK(summary_of(c, g, Sharing::in_turns).free_in_ms > half.free_in_ms);

  c.start(g, *g.lane(1), 0, {{1, 200}}, 2);  // all others
  const Opening opening = next_opening(c, g);
  CHECK_EQ(opening.in_ms, std::min(g.steps[0].predicted_ms, g.steps[1].predicted_ms));
}

void cached_tokens_are_no_work() {
  Fixture f;
  Cluster& c = *f.cluster;
  c.enqueue(c.gpu(0), 2);
  CHECK_EQ(c.request(2).uncached(), 200);
  const placement::Resident r = resident_of(c, *c.gpu(0).lane(2));
  CHECK_EQ(r.waiting_tokens, 200.0);
  CHECK(r.state == placement::Residency::loading);  // wanted, so on their way
}

void parked_gpus_are_told_apart() {
  Fixture f;
  f.cluster->park(f.cluster->gpu(1));
  CHECK(summary_of(*f.cluster, f.cluster->gpu(1), Sharing::side_by_side).parked);
}

void a_reservation_counts_until_the_next_summary() {
  Fixture f;
  Cluster& c = *f.cluster;
  c.preload(c.gpu(0), 0);
  c.preload(c.gpu(1), 0);
  placement::Options o;
  o.policy = placement::Policy::paper;
  Summaries summaries(c, o, 20, Sharing::side_by_side);
  const placement::Placement first = summaries.place(c, 0, 10, {});
  summaries.reserve(c, first.slot, 0, 10);
  const placement::Placement second = summaries.place(c, 0, 10, {});
  CHECK(second.slot != first.slot);  // equal but for the memory that the first was promised
}

// Of each clock the fewest SMs in time, of these the least energy with idle power.
void the_operating_point_of_a_phase_is_the_sweeps() {
  Fixture f;
  const Cluster& c = *f.cluster;
  constexpr double kDeadline = 20;
  const PhasePoint p = phase_point(paper_model(c, 0), Phase::prefill, 256, 0, kDeadline);
  double least = 1e30;
  for (const double mhz : {500.0, 1000.0, 2000.0}) {
    for (const double sms : {20.0, 40.0, 80.0, 100.0}) {
      const double ms = sample::latency_ms(256, 0, sms, mhz);
      if (ms > kDeadline) continue;
      const double idle_w = mhz == 500 ? 50 : mhz == 1000 ? 60 : 90;
      least = std::min(least, ms * (sample::power_w(sms, mhz) + idle_w));
      break;  // fewer SMs come first
    }
  }
  CHECK(p.latency_ms <= kDeadline);
  CHECK_NEAR(p.latency_ms * p.power_w, least, 1e-5);
  // Nothing is in time: the whole GPU at the top clock.
  const PhasePoint late = phase_point(paper_model(c, 0), Phase::prefill, 256, 0, 0.5);
  CHECK_EQ(late.sms, 100.0);
  CHECK_EQ(late.clock_mhz, 2000.0);
}

void demand_grows_with_the_load() {
  Fixture f;
  const Cluster& c = *f.cluster;
  const Observed few{0.0001, 256, 100, 400, 100};
  Observed many = few;
  many.per_ms = 0.01;
  const packing::Item low = demand_of(paper_model(c, 0), few, 300'000);
  const packing::Item high = demand_of(paper_model(c, 0), many, 300'000);
  CHECK(high.bytes > low.bytes);
  CHECK(high.time_ms > low.time_ms);
  CHECK(high.sms >= low.sms);
  CHECK(low.bytes > c.weight_bytes(0));
  CHECK(low.clock_mhz >= 500 && low.clock_mhz <= 2000);
}

void a_window_forgets() {
  LoadWindow window(1000);
  festina::simulator::Request q;
  q.input_tokens = 100;
  CHECK(!window.means(0, 10).has_value());
  window.add(0, q);
  q.input_tokens = 300;
  window.add(900, q);
  const Observed both = window.means(900, 10).value();
  CHECK_EQ(both.input_tokens, 200.0);
  const Observed last = window.means(1500, 10).value();
  CHECK_EQ(last.input_tokens, 300.0);
  CHECK_NEAR(last.per_ms, 0.001, 1e-12);
  CHECK(!window.means(1900, 10).has_value());
}

}  // namespace

int main() {
  an_idle_gpu_offers_all_it_has();
  steps_hold_sms_and_full_gpus_say_when_they_open();
  cached_tokens_are_no_work();
  parked_gpus_are_told_apart();
  a_reservation_counts_until_the_next_summary();
  the_operating_point_of_a_phase_is_the_sweeps();
  demand_grows_with_the_load();
  a_window_forgets();
}
