#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/local.hpp"

// What one GPU does next, by our local rule (DESIGN 4.2): decodes wait until just inside their
// objective, prompts run in chunks that fit into the gaps and take their model's decodes along.
namespace festina::simulator {

struct LocalOptions {
  bool pace = true;      // else decodes run as soon as they can
  bool mix = true;       // prompts take their model's decodes along
  double margin = 0.03;  // share of each objective kept in reserve
  double sigmas = 2;     // of the profile's error, added to every predicted step
  double chunk_tokens = 2048;
  double chunk_min_tokens = 64;
};

class FestinaLocal {
 public:
  explicit FestinaLocal(const LocalOptions& options) : options_(options) {}

  // Starts the next step, or sets a timer for when one should start.
  void dispatch(Cluster& c, Gpu& g) {
    if (!g.awake() || !g.steps.empty()) return;
    const double now_ms = c.now_ms();
    collect(c, g);
    const double first_ms = set_latest_starts(groups_);
    const Prompt prompt = most_urgent(c, g);
    if (prompt.request != kNone) {
      Lane& lane = *g.lanes[static_cast<std::size_t>(prompt.lane)];
      if (start_prompt(c, g, lane, prompt)) return;
      if (!groups_.empty()) return start_decode(c, g, groups_.front());
      return start_forced(c, g, lane, prompt);
    }
    if (groups_.empty()) return;
    constexpr double kSoon = 1e-6;
    if (!options_.pace || first_ms <= now_ms + kSoon) return start_decode(c, g, groups_.front());
    c.set_timer(g, first_ms);
  }

 private:
  static constexpr std::size_t kAhead = 16;  // waiting prompts whose deadlines are compared

  struct Prompt {
    int lane = kNone;
    int request = kNone;
    double start_ms = kNever;  // when it must start to be in time
    double deadline_ms = kNever;
  };

  int decodes_of(const Cluster& c, const Lane& l) const {
    return static_cast<int>(
        std::min(l.running.size(), static_cast<std::size_t>(c.setup().batch_max)));
  }
  // A clock that is about to sink is planned with already.
  static int clock(const Gpu& g) { return std::min(g.clock, g.clock_target); }
  double upper(const Cluster& c, const Lane& l, Phase phase) const {
    return 1 + options_.sigmas * c.belief().spread(l.model, phase);
  }
  double due_ms(const Lane& l) const { return l.due_ms - options_.margin * l.tbt_ms; }

  void collect(const Cluster& c, const Gpu& g) {
    groups_.clear();
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const Lane& l = *g.lanes[i];
      if (l.running.empty() || l.weights != Weights::ready) continue;
      const double latency_ms = c.predict_ms(l, decodes_of(c, l), {}, c.full_rung(), clock(g));
      groups_.push_back({static_cast<int>(i), due_ms(l), latency_ms * upper(c, l, Phase::decode)});
    }
  }

  Prompt most_urgent(const Cluster& c, const Gpu& g) const {
    Prompt best;
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const Lane& l = *g.lanes[i];
      if (l.weights != Weights::ready) continue;
      for (std::size_t k = 0; k < std::min(l.waiting.size(), kAhead); ++k) {
        const int r = l.waiting[k];
        const Request& q = c.request(r);
        if (!c.has_room(g, r)) continue;
        const double deadline_ms =
            rolled_deadline(q.sent_ms, q.ttft_ms * (1 - options_.margin), c.now_ms());
        const Chunk all{r, q.pending_tokens()};
        const double start_ms = deadline_ms - c.predict_ms(l, 0, {&all, 1}, c.full_rung(), clock(g));
        if (start_ms < best.start_ms) best = {static_cast<int>(i), r, start_ms, deadline_ms};
      }
    }
    return best;
  }

  // Until when a step of `lane` may run: the other models' decodes start in time, and its own are
  // out in time.
  double ends_by(int lane) {
    double own_ms = kNever;
    others_.clear();
    for (const DecodeGroup& group : groups_) {
      if (group.lane == lane) {
        own_ms = group.due_ms;
      } else {
        others_.push_back(group);
      }
    }
    return std::min(own_ms, set_latest_starts(others_));
  }

  bool start_prompt(Cluster& c, Gpu& g, Lane& lane, const Prompt& prompt) {
    const int decodes = options_.mix ? decodes_of(c, lane) : 0;
    const double budget_ms = (options_.mix ? ends_by(prompt.lane) : first_start()) - c.now_ms();
    std::vector<Chunk> chunks = fill(c, g, lane, prompt.request);
    int tokens = 0;
    for (const Chunk& chunk : chunks) tokens += chunk.tokens;
    const int fits = largest(c, g, lane, decodes, chunks, tokens, budget_ms);
    if (fits < std::min(tokens, static_cast<int>(options_.chunk_min_tokens))) return false;
    cut(chunks, fits);
    c.start(g, lane, decodes, std::move(chunks), c.full_rung());
    return true;
  }
  double first_start() const { return groups_.empty() ? kNever : groups_.front().start_ms; }

  // The urgent prompt first, then others of its model, up to a chunk.
  std::vector<Chunk> fill(const Cluster& c, const Gpu& g, const Lane& lane, int first) const {
    int left = static_cast<int>(options_.chunk_tokens);
    std::vector<Chunk> chunks;
    const auto add = [&](int r) {
      const int tokens = std::min(left, c.request(r).pending_tokens());
      if (tokens <= 0) return;
      chunks.push_back({r, tokens});
      left -= tokens;
    };
    add(first);
    double room = c.memory_free_bytes(g) - (c.admitted(first) ? 0 : c.expected_kv_bytes(first));
    for (std::size_t k = 0; k < std::min(lane.waiting.size(), kAhead) && left > 0; ++k) {
      const int r = lane.waiting[k];
      if (r == first) continue;
      const double need = c.admitted(r) ? 0 : c.expected_kv_bytes(r);
      if (need > room) continue;
      room -= need;
      add(r);
    }
    return chunks;
  }

  static void cut(std::vector<Chunk>& chunks, int tokens) {
    std::size_t kept = 0;
    while (kept < chunks.size() && tokens > 0) {
      chunks[kept].tokens = std::min(chunks[kept].tokens, tokens);
      tokens -= chunks[kept++].tokens;
    }
    chunks.resize(kept);
  }

  // Most tokens, up to `most`, with which the step stays within the budget.
  int largest(const Cluster& c, const Gpu& g, const Lane& lane, int decodes,
              const std::vector<Chunk>& chunks, int most, double budget_ms) const {
    StepWork w = c.work(lane, decodes, chunks);
    budget_ms /= upper(c, lane, Phase::prefill);
    const auto fits = [&](int tokens) {
      w.tokens = tokens;
      return c.belief().step(lane.model, w, c.full_rung(), clock(g)).latency_ms <= budget_ms;
    };
    if (fits(most)) return most;
    int low = 0, high = most;
    while (high - low > std::max(8, high / 32)) {
      const int middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
    return low;
  }

  void start_decode(Cluster& c, Gpu& g, const DecodeGroup& group) const {
    Lane& l = *g.lanes[static_cast<std::size_t>(group.lane)];
    c.start(g, l, decodes_of(c, l), {}, c.full_rung());
  }

  // Nothing else wants the GPU.
  void start_forced(Cluster& c, Gpu& g, Lane& lane, const Prompt& prompt) const {
    std::vector<Chunk> chunks = fill(c, g, lane, prompt.request);
    c.start(g, lane, 0, std::move(chunks), c.full_rung());
  }

  LocalOptions options_;
  std::vector<DecodeGroup> groups_;  // kept between calls, so that deciding allocates little
  std::vector<DecodeGroup> others_;
};

}  // namespace festina::simulator
