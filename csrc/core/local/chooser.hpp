#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core/local/pace.hpp"
#include "core/local/types.hpp"
#include "core/profile_table/cell.hpp"

// Our local rule (DESIGN 4.2): decodes wait until just inside their objective, so that batches grow
// and weight reads are shared; prompts run at once, in chunks that end before the next decode must
// start, and take their own model's decodes along, which then cost no reading of weights.
namespace festina::local {

// What a step has to do: prompts, decodes, or both in one pass over the weights.
struct StepWork {
  int decodes = 0;
  double context_mean = 0;  // tokens in the cache of each decode
  int tokens = 0;           // of prompts
  double cached_mean = 0;   // tokens in the cache of each prompt

  Phase phase() const noexcept { return tokens > 0 ? Phase::prefill : Phase::decode; }
};

// Time for a whole prompt behind `cached` tokens, in chunks: the middle one stands for all, because
// attention grows with what is cached. `Cost` as below.
template <class Cost>
double prompt_ms(const Cost& cost, int model, int tokens, double cached, int chunk_tokens) {
  if (tokens <= chunk_tokens) return cost.latency_ms(model, StepWork{0, 0, tokens, cached});
  const double middle = cached + (tokens - chunk_tokens) / 2.0;
  return cost.latency_ms(model, StepWork{0, 0, chunk_tokens, middle}) * tokens / chunk_tokens;
}

// Decides for one GPU that runs one step at a time. `Cost` is a view of the profile at the GPU's
// operating point:
//   double latency_ms(int model, const StepWork&) const;
//   double spread(int model, Phase) const;  // relative error of that
// Keeps memory between calls; used by one thread.
class Chooser {
 public:
  explicit Chooser(const Options& options) : options_(options) {}

  // `free_bytes`: memory for prompts that are not admitted yet; `alone`: no prompt is, so that one
  // may go ahead whatever it needs.
  template <class Cost>
  Choice choose(std::span<const Lane> lanes, const Cost& cost, double free_bytes, bool alone,
                double now_ms) {
    group(lanes, cost);
    const double first_ms = set_latest_starts(groups_);
    const Urgent urgent = most_urgent(lanes, cost, free_bytes, alone, now_ms);
    if (urgent.prompt != nullptr) {
      Choice choice = with_prompt(lanes, cost, urgent, free_bytes, now_ms);
      if (choice.lane != kNone) return choice;
      return decode(lanes, groups_.front());  // early, to make room for the prompt
    }
    if (groups_.empty()) return {};
    constexpr double kSoon = 1e-6;
    if (!options_.pace || first_ms <= now_ms + kSoon) return decode(lanes, groups_.front());
    Choice wait;
    wait.wait_until_ms = first_ms;
    return wait;
  }

 private:
  struct Urgent {
    int lane = kNone;
    const Prompt* prompt = nullptr;
    double start_ms = kNever;  // when it must start to be in time
  };

  static const Lane& at(std::span<const Lane> lanes, int lane) {
    return lanes[static_cast<std::size_t>(lane)];
  }
  template <class Cost>
  double upper(const Cost& cost, int model, Phase phase) const {
    return 1 + options_.sigmas * cost.spread(model, phase);
  }

  template <class Cost>
  void group(std::span<const Lane> lanes, const Cost& cost) {
    groups_.clear();
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const Lane& l = lanes[i];
      if (l.decodes == 0) continue;
      const StepWork w{l.decodes, l.context_mean, 0, 0};
      groups_.push_back({static_cast<int>(i), l.due_ms - options_.margin * l.tbt_ms,
                         cost.latency_ms(l.model, w) * upper(cost, l.model, Phase::decode)});
    }
  }

  template <class Cost>
  Urgent most_urgent(std::span<const Lane> lanes, const Cost& cost, double free_bytes, bool alone,
                     double now_ms) const {
    Urgent best;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      for (const Prompt& p : lanes[i].prompts) {
        if (!p.admitted && p.memory_bytes > free_bytes && !alone) continue;
        const double objective_ms = p.objective_ms * (1 - options_.margin);
        const StepWork w{0, 0, p.pending_tokens, static_cast<double>(p.cached_tokens)};
        const double start_ms =
            rolled_deadline(p.since_ms, objective_ms, now_ms) - cost.latency_ms(lanes[i].model, w);
        if (start_ms < best.start_ms) best = {static_cast<int>(i), &p, start_ms};
      }
    }
    return best;
  }

  // Until when a step of `lane` may run: the other models' decodes start in time, and its own,
  // which come along, are out in time.
  double ends_by(int lane, bool along) {
    double own_ms = kNever;
    others_.clear();
    for (const DecodeGroup& g : groups_) {
      if (g.lane == lane && along) {
        own_ms = g.due_ms;
      } else {
        others_.push_back(g);
      }
    }
    return std::min(own_ms, set_latest_starts(others_));
  }

  template <class Cost>
  Choice with_prompt(std::span<const Lane> lanes, const Cost& cost, const Urgent& urgent,
                     double free_bytes, double now_ms) {
    const Lane& lane = at(lanes, urgent.lane);
    const int decodes = options_.mix ? lane.decodes : 0;
    const double budget_ms = ends_by(urgent.lane, decodes > 0) - now_ms;
    Choice choice;
    choice.chunks = fill(lane, *urgent.prompt, free_bytes);
    const StepWork alone{decodes, lane.context_mean, 0, 0};
    const int most = total(choice.chunks);
    const int tokens = largest(cost, lane.model, alone, choice.chunks, budget_ms);
    if (tokens < std::min(most, options_.chunk_min_tokens) && !groups_.empty()) return {};
    cut(choice.chunks, tokens);
    choice.lane = urgent.lane;
    choice.decodes = decodes;
    return choice;
  }

  // The urgent prompt first, then others of its model, up to a chunk.
  std::vector<Chunk> fill(const Lane& lane, const Prompt& first, double free_bytes) const {
    int left = options_.chunk_tokens;
    std::vector<Chunk> chunks;
    const auto add = [&chunks, &left](const Prompt& p) {
      const int tokens = std::min(left, p.pending_tokens);
      if (tokens > 0) chunks.push_back({p.id, tokens, p.cached_tokens});
      left -= tokens;
    };
    add(first);
    if (!first.admitted) free_bytes -= first.memory_bytes;
    for (const Prompt& p : lane.prompts) {
      if (left <= 0) break;
      if (p.id == first.id) continue;
      if (!p.admitted) {
        if (p.memory_bytes > free_bytes) continue;
        free_bytes -= p.memory_bytes;
      }
      add(p);
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

  static int total(const std::vector<Chunk>& chunks) {
    int sum = 0;
    for (const Chunk& c : chunks) sum += c.tokens;
    return sum;
  }

  // `w` with the first `tokens` of the chunks. Their caches differ, so that what is cut off changes
  // the mean.
  static StepWork joined(StepWork w, const std::vector<Chunk>& chunks, int tokens) {
    double cached = 0;
    for (const Chunk& c : chunks) {
      const int taken = std::min(c.tokens, tokens - w.tokens);
      cached += static_cast<double>(c.cached_tokens) * taken;
      w.tokens += taken;
    }
    if (w.tokens > 0) w.cached_mean = cached / w.tokens;
    return w;
  }

  // Most tokens of the chunks with which the step stays within the budget.
  template <class Cost>
  int largest(const Cost& cost, int model, const StepWork& w, const std::vector<Chunk>& chunks,
              double budget_ms) const {
    const int most = total(chunks);
    budget_ms /= upper(cost, model, Phase::prefill);
    const auto fits = [&](int tokens) {
      return cost.latency_ms(model, joined(w, chunks, tokens)) <= budget_ms;
    };
    if (groups_.empty() || fits(most)) return most;
    int low = 0, high = most;
    while (high - low > std::max(8, high / 32)) {
      const int middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
    return low;
  }

  static Choice decode(std::span<const Lane> lanes, const DecodeGroup& g) {
    Choice choice;
    choice.lane = g.lane;
    choice.decodes = at(lanes, g.lane).decodes;
    return choice;
  }

  Options options_;
  std::vector<DecodeGroup> groups_;  // kept between calls, so that deciding allocates little
  std::vector<DecodeGroup> others_;
};

}  // namespace festina::local
