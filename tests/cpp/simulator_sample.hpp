#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "core/profile_table/table.hpp"
#include "core/simulator/run.hpp"
#include "profile_table_sample.hpp"

// What tests of the simulator share: a small cluster of the sample table, and a policy that does
// what a test says.
namespace sample {

using namespace festina::simulator;

inline constexpr int kTop = 2;   // clock, of the sample's three
inline constexpr int kFull = 3;  // rung, of its four

// Serves each lane for itself: prompts one after the other, then all decodes, on a fixed rung.
class Script : public Policy {
 public:
  std::function<void(Cluster&)> on_start = [](Cluster& c) {
    for (int m = 0; m < c.models(); ++m) c.preload(c.gpu(0), m);
  };
  std::function<void(Cluster&, int)> on_arrived = [](Cluster& c, int r) { c.enqueue(c.gpu(0), r); };
  std::function<void(Cluster&, Gpu&)> before_dispatch = [](Cluster&, Gpu&) {};
  std::function<void(Cluster&, int)> on_prefilled = [](Cluster& c, int r) {
    c.join(c.gpu(c.request(r).gpu), r);
  };
  int rung = kFull;

  void start(Cluster& c) override { on_start(c); }
  void arrived(Cluster& c, int r) override { on_arrived(c, r); }
  void prefilled(Cluster& c, int r) override { on_prefilled(c, r); }
  void dispatch(Cluster& c, Gpu& g) override {
    before_dispatch(c, g);
    for (const auto& l : g.lanes) {
      if (l->busy || l->weights != Weights::ready) continue;
      if (!l->waiting.empty() && g.awake()) {
        const int r = l->waiting.front();
        c.start(g, *l, 0, {{r, c.request(r).uncached()}}, rung);
      } else if (!l->running.empty()) {
        c.start(g, *l, static_cast<int>(l->running.size()), {}, rung);
      }
    }
  }
};

inline Device device() {
  Device d{};
  d.memory_bytes = 1e9;
  d.parked_w = 10;
  d.power_cap_w = 1000;
  d.wake_ms = 100;
  d.clock_switch_ms = 5;
  d.load_bytes_per_s = 1e8;
  d.load_fixed_ms = 2;
  d.storage_bytes_per_s = 1e7;
  d.peer_bytes_per_s = 1e9;
  d.move_fixed_ms = 3;
  d.bandwidth_bytes_per_s = 1e12;
  d.byte_j = 0;
  return d;
}

inline Setup setup(double duration_ms = 10'000) {
  Setup s;
  s.host_memory_bytes = 1e12;
  s.duration_ms = duration_ms;
  s.drain_ms = 10'000;
  s.bucket_ms = 70;
  s.window_to_ms = duration_ms;
  return s;
}

inline Request request(double arrival_ms, int model, int input_tokens, int output_tokens) {
  Request q;
  q.arrival_ms = arrival_ms;
  q.model = model;
  q.input_tokens = input_tokens;
  q.output_tokens = output_tokens;
  q.ttft_ms = 1000;
  q.tbt_ms = 100;
  return q;
}

inline std::vector<Deployment> deployments(int models, double time_bias = 1) {
  std::vector<Deployment> rows;
  for (int m = 0; m < models; ++m) {
    rows.push_back({std::to_string(m), m, {time_bias, time_bias}, {1, 1}});
  }
  return rows;
}

// A cluster that owns its table, whose truth is what policies believe but for `time_bias`.
struct World {
  World(int models, std::vector<Request> requests, const Device& d = device(),
        const Setup& s = setup(), double time_bias = 1, bool learns = true)
      : table(spec(models)),
        cluster(table.view(), table.view(), d, s, deployments(models, time_bias),
                std::move(requests), learns) {}

  void run(Policy& policy) { cluster.run(policy, {}); }
  Price prefill(int tokens, int rung = kFull, int clock = kTop) const {
    StepWork w;
    w.tokens = tokens;
    return price(table.view(), 0, w, rung, clock);
  }
  Price decode(int batch, double context, int rung = kFull, int clock = kTop) const {
    return price(table.view(), 0, {batch, context, 0, 0}, rung, clock);
  }

  festina::ProfileTable table;
  Cluster cluster;
};

inline double joules_of_requests(const Cluster& c) {
  double sum = 0;
  for (const Request& q : c.requests()) sum += q.energy_j;
  return sum;
}
inline double joules_without_step(Cluster& c) {
  double sum = 0;
  for (int i = 0; i < c.gpus(); ++i) sum += c.gpu(i).overhead_j;
  return sum;
}

}  // namespace sample
