#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/simulator/events.hpp"
#include "core/simulator/gpu.hpp"
#include "core/simulator/histogram.hpp"
#include "core/simulator/meter.hpp"
#include "core/simulator/misuse.hpp"
#include "core/simulator/policy.hpp"
#include "core/simulator/pricing.hpp"
#include "core/simulator/random.hpp"
#include "core/simulator/types.hpp"

// The cluster in virtual time: GPUs, weights, KV caches, steps, clocks and their joules.
namespace festina::simulator {

struct Counts {
  std::uint64_t completed = 0, failed = 0, rejected = 0;
  std::uint64_t migrations = 0, clock_switches = 0, loads = 0, evictions = 0, steps = 0, events = 0;
  std::uint64_t output_tokens = 0;
};

// What an operator declares of a deployment: policies that plan ahead start from it.
struct Hint {
  double requests_per_s = 0;
  double input_tokens = 0;
  double output_tokens = 0;
  double ttft_ms = kNever;  // tightest objectives
  double tbt_ms = kNever;
  int input_tokens_max = 0;  // longest of the run
  int output_tokens_max = 0;
};

// Owned and used by one thread. The tables must outlive it.
class Cluster {
 public:
  Cluster(ProfileView belief, ProfileView truth, const Device& device, const Setup& setup,
          std::vector<Deployment> deployments, std::vector<Request> requests, bool learns)
      : belief_(belief, deployments, learns),
        truth_(truth),
        device_(device),
        setup_(setup),
        deployments_(std::move(deployments)),
        requests_(std::move(requests)),
        random_(setup.seed),
        meter_(setup.bucket_ms),
        hints_(declared(deployments_.size(), requests_, setup.duration_ms)),
        outputs_(deployments_.size(), kOutputGuess),
        in_host_(deployments_.size(), 0) {
    const int top = belief.clocks() - 1;
    default_clock_ = setup.default_clock_mhz > 0
                         ? std::max(0, belief.clock_within(setup.default_clock_mhz))
                         : top;
    gpus_.resize(static_cast<std::size_t>(setup.gpus));
    for (int i = 0; i < setup.gpus; ++i) {
      Gpu& g = gpus_[static_cast<std::size_t>(i)];
      g.index = i;
      g.clock = g.clock_target = default_clock_;
      g.lane_of.assign(deployments_.size(), kNone);
      rerate(g);
    }
    touched_.reserve(gpus_.size());
    fill_host();
  }

  // --- what policies may look at ----------------------------------------------------------------
  double now_ms() const noexcept { return now_ms_; }
  int gpus() const noexcept { return static_cast<int>(gpus_.size()); }
  int models() const noexcept { return static_cast<int>(deployments_.size()); }
  Gpu& gpu(int index) noexcept { return gpus_[static_cast<std::size_t>(index)]; }
  const Request& request(int index) const noexcept {
    return requests_[static_cast<std::size_t>(index)];
  }
  const Belief& belief() const noexcept { return belief_; }
  const ProfileView& table() const noexcept { return belief_.table(); }
  const Device& device() const noexcept { return device_; }
  const Setup& setup() const noexcept { return setup_; }
  int default_clock() const noexcept { return default_clock_; }
  int top_clock() const noexcept { return table().clocks() - 1; }
  int full_rung() const noexcept { return table().rungs() - 1; }
  const layout::Model& model(int index) const noexcept {
    return table().model(belief_.profile(index));
  }
  double weight_bytes(int model_index) const noexcept {
    return static_cast<double>(model(model_index).weight_bytes);
  }
  double kv_bytes(int model_index, double tokens) const noexcept {
    return static_cast<double>(model(model_index).kv_bytes_per_token) * tokens;
  }
  // The mean load of the whole run: what an operator would declare.
  const Hint& hint(int model_index) const noexcept {
    return hints_[static_cast<std::size_t>(model_index)];
  }
  // Mean output of the model's finished requests.
  double expected_output(int model_index) const noexcept {
    return outputs_[static_cast<std::size_t>(model_index)];
  }
  double expected_kv_bytes(int r) const noexcept {
    const Request& q = request(r);
    const double ahead = std::max(expected_output(q.model) - q.generated, 32.0);
    return kv_bytes(q.model, q.prompt_tokens() + ahead);
  }
  double memory_free_bytes(const Gpu& g) const noexcept {
    return device_.memory_bytes - g.weight_bytes - std::max(g.reserved_bytes, g.kv_bytes);
  }
  bool admitted(int r) const noexcept { return reserved_[static_cast<std::size_t>(r)] > 0; }
  // There is KV cache for all that the request is expected to need, or nobody else is in the way.
  bool has_room(const Gpu& g, int r) const noexcept {
    return admitted(r) || expected_kv_bytes(r) <= memory_free_bytes(g) || g.reserved_bytes <= 0;
  }
  bool in_host(int model_index) const noexcept {
    return in_host_[static_cast<std::size_t>(model_index)] != 0;
  }
  double load_ms(int model_index) const noexcept {
    const double rate =
        in_host(model_index) ? device_.load_bytes_per_s : device_.storage_bytes_per_s;
    return device_.load_fixed_ms + weight_bytes(model_index) / rate * 1000.0;
  }
  double move_ms(int r) const noexcept {
    const Request& q = request(r);
    return device_.move_fixed_ms +
           kv_bytes(q.model, q.done_tokens) / device_.peer_bytes_per_s * 1000.0;
  }
  // Work of a step over the first `decodes` of the lane's requests and `chunks`.
  StepWork work(const Lane& lane, int decodes, std::span<const Chunk> chunks) const {
    StepWork w;
    w.decodes = decodes;
    if (decodes > 0) {
      w.context_mean = lane.context_tokens / static_cast<double>(lane.running.size());
    }
    double cached = 0;
    for (const Chunk& c : chunks) {
      w.tokens += c.tokens;
      cached += static_cast<double>(request(c.request).cached()) * c.tokens;
    }
    if (w.tokens > 0) w.cached_mean = cached / w.tokens;
    return w;
  }
  double predict_ms(const Lane& lane, int decodes, std::span<const Chunk> chunks, int rung,
                    int clock) const {
    return belief_.step(lane.model, work(lane, decodes, chunks), rung, clock).latency_ms;
  }

  // --- mechanisms -------------------------------------------------------------------------------
  Lane& lane(Gpu& g, int model_index) {
    std::int16_t& at = g.lane_of[static_cast<std::size_t>(model_index)];
    if (at < 0) {
      at = static_cast<std::int16_t>(g.lanes.size());
      g.lanes.push_back(std::make_unique<Lane>());
      g.lanes.back()->model = model_index;
      g.lanes.back()->last_used_ms = now_ms_;
    }
    return *g.lanes[static_cast<std::size_t>(at)];
  }

  void enqueue(Gpu& g, int r);

  // Takes a waiting request off its GPU again; what was prefilled of it is lost. No step may run
  // it.
  void withdraw(int r);

  void reject(int r) {
    own(r).stage = Stage::rejected;
    ++counts_.rejected;
    end(r);
  }

  // Weights that are there before the first request, at no cost.
  void preload(Gpu& g, int model_index) {
    lane(g, model_index).weights = Weights::ready;
    g.weight_bytes += weight_bytes(model_index);
  }

  // Starts to load weights; loads of one GPU follow each other.
  void load(Gpu& g, int model_index);

  // Forgets weights, if the lane has any; it must be idle, and goes where it is empty. Throws
  // Misuse if they are on their way.
  void unload(Gpu& g, int model_index);

  // Destroys the context; nothing may be resident or under way.
  void park(Gpu& g);
  void wake(Gpu& g);

  void set_clock(Gpu& g, int clock);
  // Before the first event, at no cost.
  void start_at_clock(Gpu& g, int clock) {
    g.clock = g.clock_target = clock;
    rerate(g);
  }

  // Calls dispatch again then, unless another timer of this GPU is set before.
  void set_timer(Gpu& g, double at_ms) {
    if (at_ms == kNever) return;
    events_.push(std::max(at_ms, now_ms_), EventKind::timer, g.index, 0, ++g.timer_version);
  }

  // Starts a step on `rung` SMs. The lane must be ready and not busy; one that decodes may start
  // prompts beside it, and the other way round. Throws Misuse if all steps have more SMs than the
  // GPU.
  void start(Gpu& g, Lane& l, int decodes, std::vector<Chunk> chunks, int rung);

  // A request that decodes joins its lane.
  void join(Gpu& g, int r);

  // Moves a request that decodes, its lane not busy, to another GPU; it pauses for the copy.
  void migrate(int r, Gpu& to);
  // The same for a request whose prompt has just been put into the cache, and that has not joined.
  void hand_over(int r, Gpu& to);

  // Drops the KV cache of a request; it waits for a prefill of all its tokens.
  void evict(int r);

  void touch(Gpu& g) {
    if (g.touched) return;
    g.touched = true;
    touched_.push_back(g.index);
  }

  // --- results ----------------------------------------------------------------------------------
  const Counts& counts() const noexcept { return counts_; }
  const Meter& meter() const noexcept { return meter_; }
  const Histogram& ttft() const noexcept { return ttft_; }
  const Histogram& tbt() const noexcept { return tbt_; }
  const std::vector<Request>& requests() const noexcept { return requests_; }
  const std::vector<Span>& spans() const noexcept { return spans_; }
  struct Sample {
    int running, queued;
  };
  const std::vector<Sample>& samples() const noexcept { return samples_; }
  double end_ms() const noexcept { return end_ms_; }
  std::uint64_t digest() const noexcept { return digest_; }
  const std::vector<Deployment>& deployments() const noexcept { return deployments_; }

  // Runs to the end of the drain. `progress` is told the share of the sending window that is over,
  // about a hundred times; false stops the run, and what has not ended then has failed.
  void run(Policy& policy, const std::function<bool(double)>& progress);

 private:
  static constexpr double kOutputGuess = 256;  // tokens, before any request has finished
  static constexpr std::size_t kSpansMax = 200'000;

  static std::vector<Hint> declared(std::size_t models, const std::vector<Request>& requests,
                                    double duration_ms) {
    std::vector<Hint> hints(models);
    std::vector<double> count(models, 0.0);
    for (const Request& q : requests) {
      const auto m = static_cast<std::size_t>(q.model);
      count[m] += 1;
      hints[m].input_tokens += q.input_tokens - q.cached_tokens;
      hints[m].output_tokens += q.output_tokens;
      hints[m].ttft_ms = std::min(hints[m].ttft_ms, static_cast<double>(q.ttft_ms));
      hints[m].tbt_ms = std::min(hints[m].tbt_ms, static_cast<double>(q.tbt_ms));
      hints[m].input_tokens_max = std::max(hints[m].input_tokens_max, q.input_tokens);
      hints[m].output_tokens_max = std::max(hints[m].output_tokens_max, q.output_tokens);
    }
    for (std::size_t m = 0; m < models; ++m) {
      hints[m].requests_per_s = count[m] / duration_ms * 1000.0;
      hints[m].input_tokens /= std::max(1.0, count[m]);
      hints[m].output_tokens /= std::max(1.0, count[m]);
    }
    return hints;
  }

  // Its mean is 1, so that noise slows or speeds no policy on the whole.
  double noise() noexcept {
    if (setup_.noise <= 0) return 1;
    return std::exp(setup_.noise * (random_.normal() - setup_.noise / 2));
  }

  Request& own(int r) noexcept { return requests_[static_cast<std::size_t>(r)]; }

  void admit(Gpu& g, Lane& l, int r);
  void release(Gpu& g, int r);
  // What rounding leaves is no reservation.
  static void unreserve(double& reserved_bytes, double bytes) {
    reserved_bytes -= bytes;
    if (reserved_bytes < 1) reserved_bytes = 0;
  }

  void depart(Gpu& g, int r);
  void arrive(Gpu& to, int r);

  // Due time and context of a lane whose `running` changed.
  void refresh(Lane& l);

  // What the step costs at the GPU's clock, in truth.
  void reprice(const Gpu& g, Step& s);

  // Books what the GPU drew since it was last settled.
  void settle(Gpu& g);

  // Power and speed after a change: co-runners share the memory's bandwidth and the power cap.
  void rerate(Gpu& g);

  void fill_host();
  // The least recently loaded weights make room.
  void keep_in_host(int m);

  void record(const Span& span) {
    const bool within = span.end_ms >= setup_.window_from_ms && span.start_ms < setup_.window_to_ms;
    if (within && spans_.size() < kSpansMax) spans_.push_back(span);
  }

  void send(Policy& policy, int r);
  void handle(Policy& policy, const Event& event);
  void end_steps(Policy& policy, Gpu& g);
  void end_step(Policy& policy, Gpu& g, Step& s);
  void charge(const Step& s);
  void emit(Request& q);
  void complete(Policy& policy, Gpu& g, int r);
  void end(int r);
  void make_room(Gpu& g, Lane& l);
  void sample();
  void fold(double value) {
    digest_ = (digest_ ^ std::bit_cast<std::uint64_t>(value)) * 0x100000001b3U;
    digest_ ^= digest_ >> 29;
  }

  Belief belief_;
  ProfileView truth_;
  Device device_;
  Setup setup_;
  std::vector<Deployment> deployments_;
  std::vector<Request> requests_;
  std::vector<double> reserved_ = std::vector<double>(requests_.size(), 0.0);
  std::vector<std::vector<int>> followers_;
  Random random_;
  Meter meter_;
  std::vector<Hint> hints_;
  std::vector<double> outputs_;
  std::vector<std::uint8_t> in_host_;
  std::list<int> host_order_;
  double host_free_bytes_ = 0;
  std::vector<Gpu> gpus_;
  int default_clock_ = 0;
  Events events_;
  std::vector<int> touched_;
  double now_ms_ = 0;
  double end_ms_ = 0;
  Counts counts_;
  Histogram ttft_, tbt_;
  std::vector<Span> spans_;
  std::vector<Sample> samples_;
  std::uint64_t digest_ = 0xcbf29ce484222325U;
};

inline void Policy::prefilled(Cluster& cluster, int request) {
  cluster.join(cluster.gpu(cluster.request(request).gpu), request);
}

}  // namespace festina::simulator

// The bodies.
#include "core/simulator/energy.hpp"
#include "core/simulator/mechanisms.hpp"
