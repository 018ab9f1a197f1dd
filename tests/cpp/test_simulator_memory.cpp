#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "core/simulator/policies/make.hpp"
#include "random_sample.hpp"
#include "simulator_sample.hpp"

// Weights and KV caches on simulated GPUs, and that nothing is lost or left over.
namespace {

using namespace sample;

constexpr double kWeightBytes = 1 << 20;  // of each model of the sample table
constexpr double kTokenBytes = 1024;      // KV cache

void all_done_and_nothing_left_over(Cluster& c) {
  std::uint64_t tokens = 0;
  for (const Request& q : c.requests()) {
    CHECK(q.stage == Stage::done);
    CHECK_EQ(q.generated, q.output_tokens);
    tokens += static_cast<std::uint64_t>(q.output_tokens);
  }
  CHECK_EQ(c.counts().completed, c.requests().size());
  CHECK_EQ(c.counts().output_tokens, tokens);
  for (int i = 0; i < c.gpus(); ++i) {
    const Gpu& g = c.gpu(i);
    CHECK_EQ(g.kv_bytes, 0.0);
    CHECK_EQ(g.reserved_bytes, 0.0);
    CHECK_EQ(g.requests, 0);
    CHECK_EQ(g.loads, 0);
    CHECK_EQ(g.moves, 0);
    CHECK(g.steps.empty());
    double weight_bytes = 0;
    for (const auto& l : g.lanes) {
      CHECK(l->empty());
      CHECK(!l->busy);
      CHECK_EQ(l->reserved_bytes, 0.0);
      if (l->weights == Weights::ready) weight_bytes += kWeightBytes;
    }
    CHECK_EQ(g.weight_bytes, weight_bytes);
  }
  const double total_j = c.meter().total_j();
  CHECK_NEAR(joules_of_requests(c) + joules_without_step(c), total_j, 1e-9);
  double buckets_j = 0;
  for (const Bucket& b : c.meter().buckets()) buckets_j += b.energy_j;
  CHECK_NEAR(buckets_j, total_j, 1e-9);
}

void loads_of_one_gpu_follow_each_other() {
  World world(3, {request(10, 0, 16, 1), request(10, 1, 16, 1), request(12, 2, 16, 1)});
  Script script;
  script.on_start = [](Cluster&) {};
  script.on_arrived = [](Cluster& c, int r) {
    c.enqueue(c.gpu(0), r);
    c.load(c.gpu(0), c.request(r).model);
  };
  world.run(script);
  all_done_and_nothing_left_over(world.cluster);
  const double load_ms = 2 + kWeightBytes / 1e8 * 1000;
  const double step_ms = world.prefill(16).latency_ms;
  for (int i = 0; i < 3; ++i) {
    CHECK_NEAR(world.cluster.request(i).first_ms, 10 + (i + 1) * load_ms + step_ms, 1e-9);
    CHECK(world.cluster.request(i).cold);
  }
  CHECK_EQ(world.cluster.counts().loads, 3U);
  // The first two loads end while nothing runs, or only beside a step, which is active.
  CHECK(world.cluster.meter().energy_j(EnergyKind::loading) > 0);
}

void host_memory_keeps_the_weights_that_were_loaded_last() {
  Setup s = setup();
  s.host_memory_bytes = 2.5 * kWeightBytes;  // room for two
  World world(3, {}, device(), s);
  Cluster& c = world.cluster;
  Gpu& g = c.gpu(0);
  const double host_ms = 2 + kWeightBytes / 1e8 * 1000, disk_ms = 2 + kWeightBytes / 1e7 * 1000;
  const auto held = [&c] { return std::vector<bool>{c.in_host(0), c.in_host(1), c.in_host(2)}; };
  const auto fetch = [&c, &g](int model) {
    const double before_ms = g.link_free_ms;
    c.load(g, model);
    return g.link_free_ms - before_ms;
  };
  CHECK((held() == std::vector<bool>{true, true, false}));
  CHECK_NEAR(fetch(2), disk_ms, 1e-9);
  CHECK((held() == std::vector<bool>{false, true, true}));
  CHECK_NEAR(fetch(1), host_ms, 1e-9);  // now 2 was loaded least recently
  CHECK_NEAR(fetch(0), disk_ms, 1e-9);
  CHECK((held() == std::vector<bool>{true, true, false}));
}

void host_memory_too_small_for_a_model_keeps_what_it_has() {
  Setup s = setup();
  s.host_memory_bytes = kWeightBytes / 2;
  World world(1, {}, device(), s);
  world.cluster.load(world.cluster.gpu(0), 0);
  CHECK(!world.cluster.in_host(0));
}

// Outputs grow far beyond the memory that is there: caches are dropped and made again.
void eviction_and_recomputation_keep_every_token() {
  Device d = device();
  d.memory_bytes = kWeightBytes + 700 * kTokenBytes;
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(request(i, 0, 16, 300 + i));
  World world(1, requests, d);
  Script script;
  script.before_dispatch = [&d](Cluster&, Gpu& g) {
    // Only where the last request alone outgrows memory may more be in use.
    CHECK(g.weight_bytes + g.kv_bytes <= d.memory_bytes || g.lane(0)->running.size() <= 1);
  };
  world.run(script);
  CHECK(world.cluster.counts().evictions > 0);
  all_done_and_nothing_left_over(world.cluster);
}

void a_cached_prefix_needs_memory_but_no_prefill() {
  Request q = request(0, 0, 512, 2);
  q.cached_tokens = 496;
  World world(1, {q});
  Script script;
  double kv_bytes = 0;
  script.on_prefilled = [&kv_bytes](Cluster& c, int r) {
    kv_bytes = c.gpu(0).kv_bytes;
    c.join(c.gpu(0), r);
  };
  world.run(script);
  CHECK_EQ(kv_bytes, 512 * kTokenBytes);
  const festina::local::StepWork w{0, 0, 16, 496};
  CHECK_NEAR(world.cluster.request(0).first_ms,
             price(world.table.view(), 0, w, kFull, kTop).latency_ms, 1e-9);
  all_done_and_nothing_left_over(world.cluster);
}

void migration_takes_tokens_and_cache_along() {
  Setup s = setup();
  s.gpus = 2;
  World world(1, {request(0, 0, 64, 20), request(0, 0, 64, 10)}, device(), s);
  Script script;
  script.on_start = [](Cluster& c) {
    for (int i : {0, 1}) c.preload(c.gpu(i), 0);
  };
  double copy_ms = 0;
  script.before_dispatch = [&copy_ms](Cluster& c, Gpu& g) {
    const Request& q = c.request(0);
    const bool here = q.gpu == 0 && g.index == 0 && q.stage == Stage::running;
    if (!here || g.lane(0)->busy || q.generated != 5) return;
    copy_ms = c.move_ms(0);
    const double before_bytes = g.kv_bytes;
    c.migrate(0, c.gpu(1));
    CHECK_EQ(c.gpu(1).kv_bytes, q.done_tokens * kTokenBytes);
    CHECK_EQ(g.kv_bytes, before_bytes - q.done_tokens * kTokenBytes);
    CHECK_EQ(c.gpu(1).requests, 1);
  };
  world.run(script);
  const Request& moved = world.cluster.request(0);
  CHECK_EQ(moved.gpu, 1);
  CHECK_EQ(world.cluster.request(1).gpu, 0);
  CHECK_EQ(world.cluster.counts().migrations, 1U);
  CHECK_NEAR(copy_ms, 3 + (64 + 4) * kTokenBytes / 1e9 * 1000, 1e-9);
  CHECK_NEAR(moved.gap_max_ms, copy_ms + world.decode(1, 68).latency_ms, 1e-9);
  CHECK(world.cluster.meter().energy_j(EnergyKind::migrating) > 0);
  all_done_and_nothing_left_over(world.cluster);
}

void a_hand_over_decodes_elsewhere() {
  Setup s = setup();
  s.gpus = 2;
  World world(1, {request(0, 0, 64, 20)}, device(), s);
  Script script;
  script.on_start = [](Cluster& c) {
    for (int i : {0, 1}) c.preload(c.gpu(i), 0);
  };
  script.on_prefilled = [](Cluster& c, int r) { c.hand_over(r, c.gpu(1)); };
  world.run(script);
  CHECK_EQ(world.cluster.request(0).gpu, 1);
  all_done_and_nothing_left_over(world.cluster);
}

void a_parked_gpu_wakes_before_it_works() {
  World world(1, {request(500, 0, 16, 1)});
  Script script;
  script.on_start = [](Cluster& c) { c.park(c.gpu(0)); };
  script.on_arrived = [](Cluster& c, int r) {
    c.wake(c.gpu(0));
    c.enqueue(c.gpu(0), r);
  };
  script.before_dispatch = [](Cluster& c, Gpu& g) {
    if (g.awake() && g.lane(0)->weights == Weights::absent) c.load(g, 0);
  };
  world.run(script);
  const double load_ms = 2 + kWeightBytes / 1e8 * 1000;
  CHECK_NEAR(world.cluster.request(0).first_ms, 500 + 100 + load_ms + world.prefill(16).latency_ms,
             1e-9);
  const Meter& meter = world.cluster.meter();
  CHECK_NEAR(meter.energy_j(EnergyKind::parked), 500 * 10 / 1000.0, 1e-9);
  CHECK_NEAR(meter.energy_j(EnergyKind::switching), 100 * 90 / 1000.0, 1e-9);
  all_done_and_nothing_left_over(world.cluster);
}

void a_run_cut_short_still_accounts_for_its_joules() {
  World world(1, {request(0, 0, 64, 100'000)});
  Script script;
  world.run(script);
  Cluster& c = world.cluster;
  CHECK_EQ(c.counts().failed, 1U);
  CHECK_EQ(c.gpu(0).steps.size(), 1U);
  CHECK_NEAR(joules_of_requests(c) + joules_without_step(c), c.meter().total_j(), 1e-9);
}

// Followers come a pause after their predecessor ended, however it ended.
void followers_wait_for_their_predecessor() {
  std::vector<Request> requests{request(0, 0, 64, 5), request(40, 0, 64, 5), request(7, 0, 64, 5)};
  requests[1].follows = 0;
  requests[2].follows = 1;
  World world(1, requests);
  Script script;
  script.on_arrived = [](Cluster& c, int r) {
    if (r == 1) return c.reject(r);
    c.enqueue(c.gpu(0), r);
  };
  world.run(script);
  const Cluster& c = world.cluster;
  CHECK_NEAR(c.request(1).sent_ms, c.request(0).last_ms + 40, 1e-12);
  CHECK_NEAR(c.request(2).sent_ms, c.request(1).sent_ms + 7, 1e-12);
  CHECK_EQ(c.counts().completed, 2U);
  CHECK_EQ(c.counts().rejected, 1U);
}

// Whatever a policy does: every request ends, and all memory comes back.
void policies_leave_nothing_over(const std::string& policy, std::uint64_t seed) {
  Draws random(seed);
  const int models = 1 + random.below(6);
  std::vector<Request> requests;
  double at_ms = 0;
  for (int i = 0; i < 150; ++i) {
    at_ms += random.chance(20) ? 0 : random.between(0, 60);
    requests.push_back(request(at_ms, random.below(models), 1 + random.below(900),
                               1 + random.below(random.chance(10) ? 900 : 60)));
    requests.back().cached_tokens = random.below(requests.back().input_tokens);
    if (i > 0 && random.chance(15)) {
      requests.back().follows = random.below(i);
      requests.back().arrival_ms = random.between(0, 500);
    }
  }
  Device d = device();
  d.memory_bytes = 3.5 * kWeightBytes + random.between(2500, 20'000) * kTokenBytes;
  Setup s = setup(at_ms + 1);
  // Aegaeon prefills and decodes on GPUs of their own.
  s.gpus = (policy.starts_with("aeg") ? 2 : 1) + random.below(3);
  s.seed = seed;
  s.noise = 0.05;
  s.batch_max = 1 + random.below(16);
  s.drain_ms = 600'000;
  World world(models, requests, d, s, random.between(0.8, 1.25));
  const auto chosen = make_policy(policy, s.gpus, {});
  world.run(*chosen);
  all_done_and_nothing_left_over(world.cluster);
}

}  // namespace

int main() {
  loads_of_one_gpu_follow_each_other();
  host_memory_keeps_the_weights_that_were_loaded_last();
  host_memory_too_small_for_a_model_keeps_what_it_has();
  eviction_and_recomputation_keep_every_token();
  a_cached_prefix_needs_memory_but_no_prefill();
  migration_takes_tokens_and_cache_along();
  a_hand_over_decodes_elsewhere();
  a_parked_gpu_wakes_before_it_works();
  a_run_cut_short_still_accounts_for_its_joules();
  followers_wait_for_their_predecessor();
  for (const char* policy :
       {"festina", "festina-paper", "serverlessllm", "muxserve", "aegaeon", "aegvoltana", "dilu"}) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) policies_leave_nothing_over(policy, seed);
  }
}
