#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/placement/cluster_view.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/residency.hpp"

// The scheduler's picture of the simulated cluster: what the agents of its GPUs report of them, no
// fresher than agents report it, and what was placed since (DESIGN 4.1).
namespace festina::simulator {

// The time at which another prompt could start, and the SMs that are free then.
struct Opening {
  double in_ms;
  int sms;
};
inline Opening next_opening(const Cluster& c, const Gpu& g) {
  Opening opening{g.awake() ? 0 : c.device().wake_ms, c.table().sms(c.full_rung())};
  double first_ms = kNever;
  int first_sms = 0;
  for (const Step& s : g.steps) {
    opening.sms -= c.table().sms(s.rung);
    const double left_ms = std::max(0.0, s.start_ms + s.predicted_ms - c.now_ms());
    if (left_ms >= first_ms) continue;
    first_ms = left_ms;
    first_sms = c.table().sms(s.rung);
  }
  if (opening.sms >= c.table().sms(0)) return opening;
  return {first_ms, opening.sms + first_sms};
}

// How a GPU runs the steps of its models: one on all SMs after the other, or on partitions.
enum class Sharing : std::uint8_t { in_turns, side_by_side };

// Time for the prompts of a lane on all SMs, and whether they can still be in time on its share.
struct Queue {
  double ms = 0;
  bool in_time = true;
};
inline Queue queue_of(const Cluster& c, const Lane& l, int clock, double sharers) {
  constexpr int kChunk = 2048;
  double tokens = 0;
  for (const int r : l.waiting) tokens += c.request(r).uncached();
  Queue queue;
  if (tokens < 1) return queue;
  StepWork w;
  w.tokens = static_cast<int>(std::min<double>(tokens, kChunk));
  const double token_ms = c.belief().step(l.model, w, c.full_rung(), clock).latency_ms / w.tokens;
  for (const int r : l.waiting) {
    const Request& q = c.request(r);
    queue.ms += q.uncached() * token_ms;
    queue.in_time = queue.in_time && c.now_ms() + queue.ms * sharers <= q.next_due_ms();
  }
  return queue;
}

// Time for the prompts that a new one has to wait for. On partitions these are not those whose
// model runs, as long as they are in time: they have their SMs.
inline double queue_ms(const Cluster& c, const Gpu& g, Sharing sharing) {
  const auto sharers = static_cast<double>(std::count_if(
      g.lanes.begin(), g.lanes.end(), [](const auto& l) { return !l->waiting.empty(); }));
  double sum_ms = 0;
  for (const auto& l : g.lanes) {
    const Queue queue = queue_of(c, *l, g.clock, sharers);
    if (sharing == Sharing::side_by_side && l->busy && queue.in_time) continue;
    sum_ms += queue.ms;
  }
  return sum_ms;
}

inline placement::Resident resident_of(const Cluster& c, const Lane& l) {
  double waiting_tokens = 0;
  for (const int r : l.waiting) waiting_tokens += c.request(r).uncached();
  return {l.model,
          l.weights == Weights::ready ? placement::Residency::ready : placement::Residency::loading,
          static_cast<int>(l.running.size()) + l.incoming,
          static_cast<int>(l.waiting.size()),
          l.context_tokens,
          waiting_tokens,
          static_cast<float>(l.tbt_ms)};
}

// Of weights that nobody uses now.
inline double evictable_bytes(const Cluster& c, const Gpu& g) {
  double bytes = 0;
  for (const auto& l : g.lanes) {
    if (evictable(*l)) bytes += c.weight_bytes(l->model);
  }
  return bytes;
}

// What the GPU's agent would report. Caches of all models share the memory that weights leave, so
// that tokens are counted at the size of the largest; idle weights make way for both.
inline placement::Summary summary_of(const Cluster& c, const Gpu& g, Sharing sharing) {
  placement::Summary s;
  s.clock_mhz = c.table().clock_mhz(g.clock);
  s.clock_target_mhz = c.table().clock_mhz(g.clock_target);
  s.parked = g.power == Power::parked;
  const Opening opening = next_opening(c, g);
  s.sms_free = opening.sms;
  s.free_in_ms = s.parked ? 0.0F : static_cast<float>(opening.in_ms + queue_ms(c, g, sharing));
  double token_bytes = 1;
  for (const auto& l : g.lanes) {
    if (l->weights == Weights::absent && l->empty()) continue;
    token_bytes = std::max(token_bytes, c.kv_bytes(l->model, 1));
    s.residents.push_back(resident_of(c, *l));
  }
  const double free = std::max(0.0, c.memory_free_bytes(g)) + evictable_bytes(c, g);
  s.kv_tokens_total = std::max(0.0, c.device().memory_bytes - g.weight_bytes) / token_bytes;
  s.kv_tokens_free = free / token_bytes;
  s.memory_free_bytes = free;
  return s;
}

class Summaries {
 public:
  Summaries(Cluster& c, const placement::Options& options, double every_ms,
            Sharing sharing = Sharing::in_turns)
      : view_({{kKind, c.table()}}, options),
        sharing_(sharing),
        every_ms_(every_ms),
        told_ms_(static_cast<std::size_t>(c.gpus()), -kNever),
        tickets_(static_cast<std::size_t>(c.gpus())) {
    for (int m = 0; m < c.models(); ++m) add_model(c, m);
    std::vector<int> models(static_cast<std::size_t>(c.models()));
    std::iota(models.begin(), models.end(), 0);
    const auto mhz = c.table().clocks_mhz();
    const std::vector<int> clocks(mhz.begin(), mhz.end());
    for (int i = 0; i < c.gpus(); ++i) {
      view_.add_gpu(std::to_string(i), kKind, c.table().sms(c.full_rung()), clocks,
                    c.device().memory_bytes, models);
    }
  }

  // Where the request should run, by what the scheduler knows; it expects `output_tokens` of it.
  // Throws placement::Refusal.
  placement::Placement place(Cluster& c, int r, int output_tokens, std::span<const int> exclude) {
    view_.expire(c.now_ms());
    for (int i = 0; i < c.gpus(); ++i) refresh(c, i);
    const Request& q = c.request(r);
    return view_.place({q.model, q.uncached(), output_tokens, {q.ttft_ms, q.tbt_ms}}, exclude);
  }

  // The request went to this GPU; it counts there until the GPU's next summary.
  void reserve(const Cluster& c, int slot, int r, int output_tokens) {
    const Request& q = c.request(r);
    const auto ticket = static_cast<std::uint64_t>(r);
    view_.reserve(slot, ticket, q.model, q.uncached(), output_tokens, c.now_ms());
    tickets_[static_cast<std::size_t>(slot)].push_back(ticket);
  }

 private:
  static constexpr const char* kKind = "simulated";

  // Declared of a deployment: its tightest objectives and its longest sequence.
  void add_model(const Cluster& c, int model) {
    const Hint& h = c.hint(model);
    const placement::Slo slo{static_cast<float>(std::min(h.ttft_ms, kSloMax)),
                             static_cast<float>(std::min(h.tbt_ms, kSloMax))};
    view_.add_model(
        c.deployments()[static_cast<std::size_t>(model)].name, c.model(model).name.data(), slo,
        std::max(1, h.input_tokens_max) + 2 * std::max(kOutputLeast, h.output_tokens_max));
  }

  void refresh(Cluster& c, int slot) {
    const auto at = static_cast<std::size_t>(slot);
    if (c.now_ms() - told_ms_[at] < every_ms_) return;
    told_ms_[at] = c.now_ms();
    placement::Summary summary = summary_of(c, c.gpu(slot), sharing_);
    summary.tickets = std::exchange(tickets_[at], {});
    view_.update(slot, std::move(summary));
  }

  static constexpr int kOutputLeast = 512;
  static constexpr double kSloMax = 1e6;
  placement::ClusterView view_;
  Sharing sharing_;
  double every_ms_;
  std::vector<double> told_ms_;
  std::vector<std::vector<std::uint64_t>> tickets_;
};

}  // namespace festina::simulator
