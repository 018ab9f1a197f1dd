#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/local/chooser.hpp"
#include "core/simulator/cluster.hpp"

// Our local rule on a simulated GPU: what it holds, as csrc/core/local sees it.
namespace festina::simulator {

class FestinaLocal {
 public:
  explicit FestinaLocal(const local::Options& options) : options_(options), chooser_(options) {}

  // Starts the next step, or sets a timer for when one should start.
  void dispatch(Cluster& c, Gpu& g) {
    if (!g.awake() || !g.steps.empty()) return;
    local::Choice choice = choose(c, g);
    if (choice.lane == local::kNone) return c.set_timer(g, choice.wait_until_ms);
    std::vector<Chunk> chunks;
    for (const local::Chunk& chunk : choice.chunks) chunks.push_back({chunk.id, chunk.tokens});
    Lane& lane = *g.lane(lanes_[static_cast<std::size_t>(choice.lane)].model);
    c.start(g, lane, choice.decodes, std::move(chunks), c.full_rung());
  }

  // What an idle GPU should do now.
  local::Choice choose(const Cluster& c, const Gpu& g) {
    view(c, g);
    const StepCost cost{c.belief(), c.full_rung(), planning_clock(g)};
    return chooser_.choose(lanes_, cost, 1, c.now_ms());
  }

  // A clock that is about to sink is planned with already.
  static int planning_clock(const Gpu& g) { return std::min(g.clock, g.clock_target); }

 private:
  static constexpr std::size_t kAhead = 16;  // waiting prompts whose deadlines are compared

  void view(const Cluster& c, const Gpu& g) {
    lanes_.clear();
    prompts_.clear();
    batches_.clear();
    batches_.reserve(g.lanes.size());  // the lanes' spans point into them
    std::size_t most = 0;
    for (const auto& l : g.lanes) most += std::min(l->waiting.size(), kAhead);
    prompts_.reserve(most);
    for (const auto& l : g.lanes) {
      if (l->weights != Weights::ready || l->empty()) continue;
      const std::size_t first = prompts_.size();
      for (std::size_t k = 0; k < std::min(l->waiting.size(), kAhead); ++k) {
        prompts_.push_back(prompt(c, l->waiting[k]));
      }
      const auto running = static_cast<int>(l->running.size());
      const std::size_t batch = batches_.size();
      if (running > 0) {
        batches_.push_back({std::min(running, c.setup().batch_max), l->context_tokens / running,
                            l->due_ms - options_.margin * l->tbt_ms});
      }
      lanes_.push_back({l->model, std::span(batches_).subspan(batch),
                        std::span(prompts_).subspan(first), c.memory_free_bytes(g),
                        g.reserved_bytes <= 0, l->last_step_ms});
    }
  }

  static local::Prompt prompt(const Cluster& c, int r) {
    const Request& q = c.request(r);
    const bool first = q.generated == 0;
    return {r,
            q.uncached(),
            q.cached(),
            first ? q.sent_ms : q.last_ms,
            static_cast<double>(first ? q.ttft_ms : q.tbt_ms),
            c.admitted(r),
            c.expected_kv_bytes(r)};
  }

  local::Options options_;
  local::Chooser chooser_;
  std::vector<local::Lane> lanes_;  // kept between calls
  std::vector<local::Batch> batches_;
  std::vector<local::Prompt> prompts_;
};

}  // namespace festina::simulator
