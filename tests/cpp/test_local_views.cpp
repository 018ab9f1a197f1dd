// A GPU that is simulated and a device that serves, in the same situation, choose the same step.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/local/situation.hpp"
#include "core/profile_table/table.hpp"
#include "core/simulator/policies/festina_local.hpp"
#include "core/simulator/run.hpp"
#include "profile_table_sample.hpp"

namespace {

using namespace festina;
using simulator::Cluster;
using simulator::Gpu;

constexpr int kModels = 3;
constexpr double kSpread = 0.05;  // what the simulator believes of any step before it learns

// Runs the simulator's local rule, and at every choice asks the device's view of it as well.
class Probe : public simulator::Policy {
 public:
  explicit Probe(const local::Options& options)
      : options_(options), simulated_(options), served_(options) {}

  void start(Cluster& c) override {
    for (int m = 0; m < kModels; ++m) c.preload(c.gpu(0), m);
  }
  void arrived(Cluster& c, int r) override { c.enqueue(c.gpu(0), r); }
  void dispatch(Cluster& c, Gpu& g) override {
    if (g.steps.empty()) compare(c, g);
    simulated_.dispatch(c, g);
  }

  int steps = 0, mixed = 0, prompts = 0, waits = 0;

 private:
  void compare(const Cluster& c, const Gpu& g) {
    const local::Choice a = simulated_.choose(c, g);
    fill(c, g);
    const local::Choice b = served_.choose(1, c.now_ms());
    CHECK_EQ(a.lane, b.lane);
    if (a.lane == local::kNone) {
      CHECK(a.wait_until_ms == b.wait_until_ms ||
            std::abs(a.wait_until_ms - b.wait_until_ms) < 1e-4);
      waits += a.wait_until_ms != local::kNever;
      return;
    }
    CHECK_EQ(a.decodes, b.decodes);
    CHECK_EQ(served_.decodes(b).size(), static_cast<std::size_t>(a.decodes));
    CHECK_EQ(a.chunks.size(), b.chunks.size());
    for (std::size_t i = 0; i < a.chunks.size(); ++i) {
      CHECK_EQ(a.chunks[i].id, b.chunks[i].id);
      CHECK_EQ(a.chunks[i].tokens, b.chunks[i].tokens);
    }
    ++steps;
    prompts += !a.chunks.empty();
    mixed += !a.chunks.empty() && a.decodes > 0;
  }

  // What an agent knows, sequence by sequence.
  void fill(const Cluster& c, const Gpu& g) {
    served_.clear();
    for (const auto& l : g.lanes) {
      if (l->empty()) continue;
      served_.add_lane({&c.table(), c.belief().profile(l->model), c.full_rung(), g.clock, {}},
                       c.memory_free_bytes(g), g.reserved_bytes <= 0, l->last_step_ms);
      for (const int r : l->running) {
        const simulator::Request& q = c.request(r);
        served_.add(
            local::Decode{r, static_cast<double>(q.done_tokens), q.last_ms, q.tbt_ms, 1, false});
      }
      const std::size_t ahead = std::min<std::size_t>(l->waiting.size(), 16);
      for (std::size_t k = 0; k < ahead; ++k) {
        const int r = l->waiting[k];
        const simulator::Request& q = c.request(r);
        const bool first = q.generated == 0;
        served_.add(local::Prompt{r, q.prompt_tokens() - q.done_tokens, q.done_tokens,
                                  first ? q.sent_ms : q.last_ms, first ? q.ttft_ms : q.tbt_ms,
                                  c.admitted(r), c.expected_kv_bytes(r)});
      }
    }
  }

  local::Options options_;
  simulator::FestinaLocal simulated_;
  local::Situation served_;
};

std::vector<simulator::Request> requests(unsigned seed) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(0.12);
  std::uniform_int_distribution<int> model(0, kModels - 1), input(20, 900), output(2, 80);
  std::vector<simulator::Request> all(1500);
  double at_ms = 0;
  for (simulator::Request& q : all) {
    q.arrival_ms = at_ms += gap(random);
    q.model = model(random);
    q.input_tokens = input(random);
    q.output_tokens = output(random);
    q.ttft_ms = 150;
    q.tbt_ms = static_cast<float>(20 + 15 * q.model);
  }
  return all;
}

void both_views_choose_alike(const local::Options& options, unsigned seed) {
  TableSpec spec = sample::spec(kModels);
  for (Cell& cell : spec.cells) cell.spread = static_cast<float>(kSpread);
  const ProfileTable table(spec);
  const simulator::Device device{24e6, 10, 700, 10, 1, 1e9, 1, 1e9, 1e9, 1, 1e13, 1e-11};
  simulator::Setup setup;
  setup.seed = seed;
  setup.noise = 0.1;
  setup.batch_max = options.batch_max;
  setup.duration_ms = 20'000;
  setup.drain_ms = 20'000;
  std::vector<simulator::Deployment> deployments;
  for (int m = 0; m < kModels; ++m) deployments.push_back({"m", m, {1, 1}, {1, 1}});
  Cluster cluster(table.view(), table.view(), device, setup, deployments, requests(seed), false);
  Probe probe(options);
  cluster.run(probe, {});
  CHECK(probe.steps > 1000);
  CHECK(probe.prompts > 200);
  CHECK(probe.mixed > 50);
  CHECK(probe.waits > 50);
}

}  // namespace

int main() {
  local::Options simulated;
  simulated.batch_max = 512;
  local::Options served = simulated;
  served.by_deadline = served.least_chunk = served.turns = true;
  served.chunk_unit_tokens = 1;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    both_views_choose_alike(simulated, seed);
    both_views_choose_alike(served, seed);
  }
}
