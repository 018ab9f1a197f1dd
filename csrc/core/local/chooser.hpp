#pragma once
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "core/local/chunks.hpp"
#include "core/local/pace.hpp"
#include "core/local/queue.hpp"
#include "core/local/step_work.hpp"
#include "core/local/turns.hpp"
#include "core/local/types.hpp"

// Our local rule (DESIGN 4.2): decodes wait until just inside their objective, so that batches grow
// and weight reads are shared; prompts run at once, in chunks that end before the next decode must
// start, and take their own model's decodes along, which then cost no reading of weights.
namespace festina::local {

// Decides for one GPU, simulated or real. `Cost` is a view of the profile at the GPU's operating
// point:
//   double latency_ms(int model, const StepWork&) const;
//   double spread(int model, const StepWork&) const;  // relative error of that
// Keeps memory between calls; used by one thread.
class Chooser {
 public:
  explicit Chooser(const Options& options) : options_(options), queues_(options) {}

  // `slots`: steps that may still start side by side; 1 on a GPU that is not partitioned.
  template <class Cost>
  Choice choose(std::span<const Lane> lanes, const Cost& cost, int slots, double now_ms) {
    queues_.set(lanes, now_ms);
    group(lanes, cost);
    const int asking = busy(lanes);
    shared_ = asking <= 1 || slots < asking;
    set_starts(lanes.size());
    steps_.clear();
    const bool blocked = add_prompts(lanes, cost, now_ms);
    if (steps_.empty() || options_.turns) add_decodes(lanes, cost, blocked, now_ms);
    if (!steps_.empty()) return std::move(next_step(steps_, lanes, now_ms).choice);
    Choice wait;
    for (const DecodeGroup& g : groups_) {
      wait.wait_until_ms = std::min(wait.wait_until_ms, g.release_ms());
    }
    return wait;
  }

 private:
  static constexpr double kSoonMs = 1e-6;

  static const Lane& at(std::span<const Lane> lanes, int lane) {
    return lanes[static_cast<std::size_t>(lane)];
  }
  template <class Cost>
  double upper(const Cost& cost, int model, const StepWork& w) const {
    return 1 + options_.sigmas * cost.spread(model, w);
  }

  int busy(std::span<const Lane> lanes) const {
    int count = 0;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      count += !lanes[i].batches.empty() || !queues_.of(static_cast<int>(i)).empty();
    }
    return count;
  }

  template <class Cost>
  void group(std::span<const Lane> lanes, const Cost& cost) {
    groups_.clear();
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const Lane& l = lanes[i];
      const bool paced = options_.pace && !queues_.held_back(static_cast<int>(i));
      for (std::size_t k = 0; k < l.batches.size(); ++k) {
        const Batch& b = l.batches[k];
        const StepWork w{b.decodes, b.context_mean, 0, 0};
        groups_.push_back({static_cast<int>(i), b.due_ms,
                           cost.latency_ms(l.model, w) * upper(cost, l.model, w), kNever,
                           static_cast<int>(k), paced ? b.paced_ms : -kNever});
      }
    }
  }

  // Latest starts of all groups, in order of deadline; of each lane alone where lanes run side by
  // side.
  void set_starts(std::size_t lanes) {
    set_latest_starts(groups_);
    if (shared_) return;
    for (std::size_t i = 0; i < lanes; ++i) {
      pick_groups([i](const DecodeGroup& g) { return g.lane == static_cast<int>(i); });
      set_latest_starts(picked_);
      auto own = picked_.begin();  // both in order of deadline
      for (DecodeGroup& g : groups_) {
        if (g.lane == static_cast<int>(i)) g.start_ms = (own++)->start_ms;
      }
    }
  }

  template <class Wanted>
  void pick_groups(const Wanted& wanted) {
    picked_.clear();
    std::copy_if(groups_.begin(), groups_.end(), std::back_inserter(picked_), wanted);
  }

  // --- prompts ----------------------------------------------------------------------------------

  // The step of the most urgent prompt, or of every lane's where they take turns. Returns whether
  // decodes leave too little room for one.
  template <class Cost>
  bool add_prompts(std::span<const Lane> lanes, const Cost& cost, double now_ms) {
    bool blocked = false;
    Urgent first;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const Urgent urgent = queues_.urgent(lanes, static_cast<int>(i), cost);
      if (urgent.prompt == nullptr) continue;
      if (options_.turns) {
        blocked = !add_prompt(lanes, cost, urgent, now_ms) || blocked;
      } else if (urgent.start_ms < first.start_ms) {
        first = urgent;
      }
    }
    return first.prompt == nullptr ? blocked : !add_prompt(lanes, cost, first, now_ms);
  }

  template <class Cost>
  bool add_prompt(std::span<const Lane> lanes, const Cost& cost, const Urgent& urgent,
                  double now_ms) {
    const Lane& lane = at(lanes, urgent.lane);
    const bool at_risk = options_.least_chunk && urgent.start_ms <= now_ms;
    StepWork w;
    if (options_.mix && !lane.batches.empty()) {
      w.decodes = lane.batches.front().decodes;
      w.context_mean = lane.batches.front().context_mean;
    }
    if (at_risk)
      w.decodes = std::min(w.decodes, options_.batch_max - 1);  // a full batch makes room
    const int room = options_.batch_max - w.decodes;
    if (room <= 0) return false;
    std::vector<Chunk> chunks =
        fill_chunks(lane, *urgent.prompt, queues_.of(urgent.lane), options_, room);
    const int most = total(chunks);
    const int least = std::min(most, options_.chunk_min_tokens);
    const bool along = w.decodes > 0;
    const double budget_ms = ends_by(urgent.lane, along) - now_ms;
    int tokens = largest(cost, lane.model, w, chunks, budget_ms);
    if (tokens < least && !groups_.empty()) {
      if (!at_risk) return false;
      tokens = least;
    }
    cut_chunks(chunks, tokens);
    w = joined(w, chunks, tokens);
    const double own_ms = along ? start_of(urgent.lane, 0) : kNever;
    add({urgent.lane, 0, w.decodes, std::move(chunks), kNever}, std::min(urgent.start_ms, own_ms),
        cost, lane.model, w);
    return true;
  }

  // Until when a step of `lane` may run: the other decodes start in time, and its own first batch,
  // if it comes along, is out in time.
  double ends_by(int lane, bool along) {
    const auto is_along = [&](const DecodeGroup& g) {
      return along && g.lane == lane && g.batch == 0;
    };
    pick_groups([&](const DecodeGroup& g) { return !is_along(g) && (shared_ || g.lane == lane); });
    double own_ms = kNever;
    for (const DecodeGroup& g : groups_) {
      if (is_along(g)) own_ms = g.due_ms;
    }
    return std::min(own_ms, set_latest_starts(picked_));
  }

  // Most tokens of the chunks with which the step stays within the budget.
  template <class Cost>
  int largest(const Cost& cost, int model, const StepWork& w, const std::vector<Chunk>& chunks,
              double budget_ms) const {
    const int most = total(chunks);
    budget_ms /= upper(cost, model, joined(w, chunks, most));
    const auto fits = [&](int tokens) {
      return cost.latency_ms(model, joined(w, chunks, tokens)) <= budget_ms;
    };
    if (groups_.empty() || fits(most)) return most;
    int low = 0, high = most;
    while (high - low > std::max(options_.chunk_unit_tokens, high / 32)) {
      const int middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
    return low;
  }

  // --- decodes ----------------------------------------------------------------------------------

  // The first batch that should run now, or the first of every lane where they take turns; early,
  // to make room for a prompt, where one is blocked.
  template <class Cost>
  void add_decodes(std::span<const Lane> lanes, const Cost& cost, bool blocked, double now_ms) {
    if (!options_.turns) {
      for (const DecodeGroup& g : groups_) {
        if (blocked || g.release_ms() <= now_ms + kSoonMs) return add_decode(lanes, cost, g);
      }
      return;
    }
    const std::size_t prompts = steps_.size();
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const auto same = [i](const Step& s) { return s.choice.lane == static_cast<int>(i); };
      const auto end = steps_.begin() + static_cast<std::ptrdiff_t>(prompts);
      if (std::any_of(steps_.begin(), end, same)) continue;
      const DecodeGroup* first = nullptr;
      for (const DecodeGroup& g : groups_) {
        if (g.lane != static_cast<int>(i)) continue;
        if (!blocked && g.release_ms() > now_ms + kSoonMs) continue;
        if (first == nullptr || g.batch < first->batch) first = &g;
      }
      if (first != nullptr) add_decode(lanes, cost, *first);
    }
  }

  template <class Cost>
  void add_decode(std::span<const Lane> lanes, const Cost& cost, const DecodeGroup& g) {
    const Lane& lane = at(lanes, g.lane);
    const Batch& b = lane.batches[static_cast<std::size_t>(g.batch)];
    add({g.lane, g.batch, b.decodes, {}, kNever}, g.start_ms, cost, lane.model,
        {b.decodes, b.context_mean, 0, 0});
  }

  double start_of(int lane, int batch) const {
    for (const DecodeGroup& g : groups_) {
      if (g.lane == lane && g.batch == batch) return g.start_ms;
    }
    return kNever;
  }

  template <class Cost>
  void add(Choice choice, double starts_by_ms, const Cost& cost, int model, const StepWork& w) {
    const double latency_ms =
        options_.turns ? cost.latency_ms(model, w) * upper(cost, model, w) : 0;
    steps_.push_back({std::move(choice), starts_by_ms, latency_ms});
  }

  Options options_;
  Queues queues_;
  bool shared_ = false;              // lanes wait for each other
  std::vector<DecodeGroup> groups_;  // kept between calls, so that deciding allocates little
  std::vector<DecodeGroup> picked_;
  std::vector<Step> steps_;
};

}  // namespace festina::local
