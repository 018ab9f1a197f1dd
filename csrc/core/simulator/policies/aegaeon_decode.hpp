#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"

// Aegaeon's decode GPUs: each a work list of batches, one per model, that take turns token by token
// (SOSP '25, section 4.3, algorithm 2).
namespace festina::simulator {

class AegaeonDecode {
 public:
  AegaeonDecode(int gpus, double quota_max_ms, double alpha_min)
      : quota_max_ms_(quota_max_ms), alpha_min_(alpha_min), gpus_(static_cast<std::size_t>(gpus)) {}

  void use(const Cluster& c, int first, int last) {
    first_ = first;
    last_ = last;
    for (State& s : gpus_) {
      s.expected.assign(static_cast<std::size_t>(c.models()), 0);
      s.used_ms.assign(static_cast<std::size_t>(c.models()), 0.0);
    }
  }
  bool owns(const Gpu& g) const noexcept { return g.index >= first_ && g.index < last_; }

  // The GPU where the request will decode: the one whose work list stays shortest with it, loads
  // included, so that a batch of its model is joined where one runs.
  int choose(Cluster& c, int r) const {
    const int model = c.request(r).model;
    int best = first_;
    double least_ms = kNever;
    for (int i = first_; i < last_; ++i) {
      const Gpu& g = c.gpu(i);
      const Lane* l = g.lane(model);
      const double list_ms = round_ms(c, g, c.default_clock(), model);
      double ms = list_ms + kOverload * std::max(0.0, list_ms - c.request(r).tbt_ms);
      if (l == nullptr || l->weights == Weights::absent) ms += c.load_ms(model);
      if (list_bytes(c, g, model) + c.expected_kv_bytes(r) > c.device().memory_bytes) {
        ms += kCrowded * c.load_ms(model);
      }
      if (ms >= least_ms) continue;
      least_ms = ms;
      best = i;
    }
    return best;
  }
  // A request will come: its weights are fetched ahead of it.
  void expect(Cluster& c, int gpu, int model) {
    ++state(gpu).expected[static_cast<std::size_t>(model)];
    c.touch(c.gpu(gpu));
  }
  void came(int gpu, int model) { --state(gpu).expected[static_cast<std::size_t>(model)]; }

  // There is memory for the request's cache, whichever batch of the work list runs; weights that
  // nobody waits for make way.
  bool has_room(Cluster& c, Gpu& g, int r) {
    if (g.requests == 0) return true;
    double largest = c.weight_bytes(c.request(r).model);
    for (const auto& l : g.lanes) {
      if (!l->empty()) largest = std::max(largest, c.weight_bytes(l->model));
    }
    const double caches = std::max(g.reserved_bytes, g.kv_bytes) + c.expected_kv_bytes(r);
    return caches + largest <= c.device().memory_bytes && unload_idle(c, g, c.expected_kv_bytes(r));
  }

  void dispatch(Cluster& c, Gpu& g) {
    State& s = state(g.index);
    if (g.steps.empty()) book(c, g, s);
    prefetch(c, g, s);
    if (!g.steps.empty()) return;
    Lane* next = nullptr;
    for (const auto& l : g.lanes) {
      if (l->weights != Weights::ready || !has_work(c, g, *l)) continue;
      if (next == nullptr || l->last_step_ms < next->last_step_ms) next = l.get();
    }
    if (next == nullptr) {
      if (g.loads == 0) drop_cache(c, g);
      return;
    }
    unload_idle(c, g, 0);
    s.running = next->model;
    const int decodes = decodes_of(c, *next);
    std::vector<Chunk> again;  // a cache that was dropped is computed anew
    if (!next->waiting.empty() && c.has_room(g, next->waiting.front())) {
      const int r = next->waiting.front();
      again.push_back({r, c.request(r).uncached()});
    }
    c.start(g, *next, decodes, std::move(again), c.full_rung());
  }

  // One token for every batch of the work list, with one more request of `guest` (kNone: nobody).
  double round_ms(const Cluster& c, const Gpu& g, int clock, int guest = kNone) const {
    double sum = 0;
    for (int m = 0; m < c.models(); ++m) {
      const int batch = batch_of(g, m) + (m == guest ? 1 : 0);
      if (batch > 0) sum += step_ms(c, g, m, batch, clock);
    }
    return sum;
  }

 private:
  static constexpr double kOverload = 10;  // weight of time beyond the objective
  static constexpr double kCrowded = 4;    // loads that a work list beyond the memory costs

  struct State {
    std::vector<int> expected;    // by model: requests in prefill that will come
    std::vector<double> used_ms;  // by model: of its turn
    int running = kNone;          // model of the last step
  };
  State& state(int gpu) { return gpus_[static_cast<std::size_t>(gpu)]; }
  const State& state(int gpu) const { return gpus_[static_cast<std::size_t>(gpu)]; }

  static int decodes_of(const Cluster& c, const Lane& l) {
    return std::min(static_cast<int>(l.running.size()), c.setup().batch_max);
  }
  static bool has_work(const Cluster& c, const Gpu& g, const Lane& l) {
    return !l.running.empty() || (!l.waiting.empty() && c.has_room(g, l.waiting.front()));
  }
  int expected(const Gpu& g, int model) const {
    return state(g.index).expected[static_cast<std::size_t>(model)];
  }
  int batch_of(const Gpu& g, int model) const {
    const Lane* l = g.lane(model);
    const int here =
        l == nullptr ? 0 : static_cast<int>(l->running.size() + l->waiting.size()) + l->incoming;
    return here + expected(g, model);
  }
  bool idle(const Gpu& g, const Lane& l) const { return l.empty() && expected(g, l.model) == 0; }

  double step_ms(const Cluster& c, const Gpu& g, int model, int batch, int clock) const {
    const Lane* l = g.lane(model);
    StepWork w;
    w.decodes = std::min(batch, c.setup().batch_max);
    w.context_mean = l != nullptr && !l->running.empty()
                         ? l->context_tokens / static_cast<double>(l->running.size())
                         : c.hint(model).input_tokens;
    return c.belief().step(model, w, c.full_rung(), clock).latency_ms;
  }
  // Weights of the work list, and caches.
  double list_bytes(const Cluster& c, const Gpu& g, int guest) const {
    double sum = std::max(g.reserved_bytes, g.kv_bytes);
    for (int m = 0; m < c.models(); ++m) {
      if (m == guest || batch_of(g, m) > 0) sum += c.weight_bytes(m);
    }
    return sum;
  }

  // The step that ended counts towards its batch's turn.
  static void book(const Cluster& c, const Gpu& g, State& s) {
    if (s.running == kNone) return;
    if (const Lane* l = g.lane(s.running); l != nullptr) {
      s.used_ms[static_cast<std::size_t>(s.running)] += c.now_ms() - l->last_step_ms;
    }
    s.running = kNone;
  }

  // Fetches the weights of the batch that has waited longest, while others run.
  void prefetch(Cluster& c, Gpu& g, State& s) {
    if (g.loads > 0) return;
    int wanted = kNone;
    double waited_since_ms = kNever;
    for (int m = 0; m < c.models(); ++m) {
      const Lane* l = g.lane(m);
      if (batch_of(g, m) == 0 || (l != nullptr && l->weights != Weights::absent)) continue;
      // Those that only will come are next after those that are here.
      const double since_ms = l == nullptr || l->empty() ? c.now_ms() : l->last_step_ms;
      if (since_ms >= waited_since_ms) continue;
      waited_since_ms = since_ms;
      wanted = m;
    }
    if (wanted == kNone) return;
    const double need = c.weight_bytes(wanted);
    if (!unload_idle(c, g, need) && !preempt(c, g, s, need)) return;
    c.load(g, wanted);
    s.used_ms[static_cast<std::size_t>(wanted)] = 0;
  }

  // Unloads weights of no batch, the longest unused first, until `bytes` are free.
  bool unload_idle(Cluster& c, Gpu& g, double bytes) const {
    while (c.memory_free_bytes(g) < bytes) {
      const Lane* oldest = nullptr;
      for (const auto& l : g.lanes) {
        if (l->weights != Weights::ready || l->busy || !idle(g, *l)) continue;
        if (oldest == nullptr || l->last_used_ms < oldest->last_used_ms) oldest = l.get();
      }
      if (oldest == nullptr) return false;
      c.unload(g, oldest->model);
    }
    return true;
  }

  // Outputs grew so far beyond what was expected that no batch's weights fit beside the caches: the
  // largest cache is dropped, to be computed anew.
  static void drop_cache(Cluster& c, Gpu& g) {
    int largest = kNone;
    double most = 0;
    for (const auto& l : g.lanes) {
      for (const int r : l->running) {
        const double bytes = c.kv_bytes(l->model, c.request(r).done_tokens);
        if (bytes <= most) continue;
        most = bytes;
        largest = r;
      }
    }
    if (largest == kNone) return;
    c.evict(largest);
    c.touch(g);
  }

  // Token-level auto-scaling: batches whose turn is over give their weights' place to the next.
  bool preempt(Cluster& c, Gpu& g, const State& s, double bytes) const {
    const double turn_ms = slack_ms(c, g);
    std::vector<const Lane*> over;
    double free = c.memory_free_bytes(g);
    for (const auto& l : g.lanes) {
      if (l->weights != Weights::ready || l->busy) continue;
      const double quota_ms = turn_ms / tokens_ahead(c, g, *l);
      if (s.used_ms[static_cast<std::size_t>(l->model)] < quota_ms) continue;
      over.push_back(l.get());
    }
    std::stable_sort(over.begin(), over.end(), [&s](const Lane* a, const Lane* b) {
      return s.used_ms[static_cast<std::size_t>(a->model)] >
             s.used_ms[static_cast<std::size_t>(b->model)];
    });
    std::size_t count = 0;
    while (free < bytes && count < over.size()) free += c.weight_bytes(over[count++]->model);
    if (free < bytes) return false;
    over.resize(count);
    for (const Lane* l : over) c.unload(g, l->model);
    return true;
  }

  // n_i: steps of the batch within its objective.
  double tokens_ahead(const Cluster& c, const Gpu& g, const Lane& l) const {
    const double tbt_ms = l.running.empty() ? kTbtGuessMs : l.tbt_ms;
    return tbt_ms / step_ms(c, g, l.model, std::max(1, batch_of(g, l.model)), g.clock);
  }
  // n_i q_i, the same for all batches: c / (alpha - sum 1/n), c the loads of a round and
  // alpha = max(c / (min n * q_max) + sum 1/n, floor), the inverse of the attainment to expect.
  double slack_ms(const Cluster& c, const Gpu& g) const {
    double loads_ms = 0, sum = 0, least = kNever;
    for (const auto& l : g.lanes) {
      if (batch_of(g, l->model) == 0) continue;
      if (l->weights == Weights::absent) loads_ms += c.load_ms(l->model);
      const double n = tokens_ahead(c, g, *l);
      sum += 1 / n;
      least = std::min(least, n);
    }
    const double alpha = std::max(loads_ms / (least * quota_max_ms_) + sum, alpha_min_);
    return loads_ms <= 0 ? 0 : loads_ms / (alpha - sum);
  }
  static constexpr double kTbtGuessMs = 100;

  double quota_max_ms_;
  double alpha_min_;
  int first_ = 0;
  int last_ = 0;
  std::vector<State> gpus_;
};

}  // namespace festina::simulator
