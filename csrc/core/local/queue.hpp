#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/pace.hpp"
#include "core/local/step_work.hpp"
#include "core/local/types.hpp"

// The prompts of each model, in the order in which they are served.
namespace festina::local {

struct Waiting {
  const Prompt* prompt;
  double deadline_ms;  // rolled on once missed
};

// The prompt of a lane that goes first.
struct Urgent {
  int lane = kNone;
  const Prompt* prompt = nullptr;
  double start_ms = kNever;  // when its lane's prompts must start to be in time
};

// Keeps memory between calls.
class Queues {
 public:
  explicit Queues(const Options& options) : options_(options) {}

  void set(std::span<const Lane> lanes, double now_ms) {
    waiting_.clear();
    ends_.clear();
    held_.clear();
    for (const Lane& lane : lanes) {
      const std::size_t first = waiting_.size();
      for (const Prompt& p : lane.prompts) {
        const double objective_ms = p.objective_ms * (1 - options_.margin);
        waiting_.push_back({&p, rolled_deadline(p.since_ms, objective_ms, now_ms)});
      }
      held_.push_back(options_.by_deadline && admit(lane, first, now_ms));
      ends_.push_back(waiting_.size());
    }
  }

  std::span<const Waiting> of(int lane) const {
    const auto i = static_cast<std::size_t>(lane);
    const std::size_t first = i > 0 ? ends_[i - 1] : 0;
    return std::span(waiting_).subspan(first, ends_[i] - first);
  }

  // Prompts of the lane wait for memory that its decodes hold.
  bool held_back(int lane) const { return held_[static_cast<std::size_t>(lane)] != 0; }

  // The lane's most urgent prompt; null where none may run.
  template <class Cost>
  Urgent urgent(std::span<const Lane> lanes, int lane, const Cost& cost) const {
    const Lane& l = lanes[static_cast<std::size_t>(lane)];
    Urgent best;
    double ahead_ms = 0;
    for (const Waiting& next : of(lane).first(std::min(of(lane).size(), kAhead))) {
      const Prompt& p = *next.prompt;
      if (options_.by_deadline) {
        ahead_ms +=
            prompt_ms(cost, l.model, p.pending_tokens, p.cached_tokens, options_.chunk_tokens);
        if (best.prompt == nullptr) best = {lane, &p, kNever};
        best.start_ms = std::min(best.start_ms, next.deadline_ms - ahead_ms);
        continue;
      }
      if (!fits(l, p)) continue;
      const StepWork w{0, 0, p.pending_tokens, static_cast<double>(p.cached_tokens)};
      const double start_ms = next.deadline_ms - cost.latency_ms(l.model, w);
      if (start_ms < best.start_ms) best = {lane, &p, start_ms};
    }
    return best;
  }

 private:
  static constexpr std::size_t kAhead = 16;  // prompts whose deadlines are compared

  static bool fits(const Lane& lane, const Prompt& p) {
    return p.admitted || p.memory <= lane.memory_free || lane.alone;
  }

  // Orders the prompts from `first` on, and leaves those that have or get memory. Returns whether
  // any was held back.
  bool admit(const Lane& lane, std::size_t first, double now_ms) {
    const auto begin = waiting_.begin() + static_cast<std::ptrdiff_t>(first);
    std::stable_sort(begin, waiting_.end(), [](const Waiting& a, const Waiting& b) {
      return a.deadline_ms < b.deadline_ms;
    });
    double memory_free = lane.memory_free;
    bool alone = lane.alone, closed = false;
    const auto out = [&](const Waiting& next) {
      const Prompt& p = *next.prompt;
      if (p.admitted) return false;
      const bool fit = p.memory <= memory_free || alone;
      const bool late = p.since_ms + p.objective_ms * (1 - options_.margin) < now_ms;
      closed = closed || (!fit && late);
      if (closed || !fit) return true;
      memory_free -= p.memory;
      alone = false;
      return false;
    };
    const auto kept = std::remove_if(begin, waiting_.end(), out);
    const bool held = kept != waiting_.end();
    waiting_.erase(kept, waiting_.end());
    return held;
  }

  Options options_;
  std::vector<Waiting> waiting_;
  std::vector<std::size_t> ends_;  // of each lane's part
  std::vector<char> held_;
};

}  // namespace festina::local
