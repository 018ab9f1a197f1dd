#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/bad_input.hpp"
#include "core/clock/prefill.hpp"
#include "core/clock/types.hpp"
#include "core/local/pace.hpp"
#include "core/local/step_work.hpp"

// Which clock a load wants: the one of least power at which everything is in time, decodes at their
// pace (DESIGN 4.2).
namespace festina::clock {

// Plans for one GPU, simulated or real, or for one that is only thought of. `Cost` is a view of the
// profile on the SMs that steps get:
//   int clocks() const;  // the last is the highest
//   double idle_w(int clock) const;
//   double switch_ms() const;  // from asking for a clock until it holds
//   Price step(int model, const StepWork&, int clock) const;
//   double spread(int model, const StepWork&, int clock) const;  // relative error of its latency
// Keeps memory between calls; used by one thread.
class Planner {
 public:
  // Throws BadInput if a value is out of range.
  explicit Planner(const Options& options) : options_(options) {
    if (!(options.margin >= 0 && options.margin < 1)) throw BadInput("margin", "0 to below 1");
    if (!(options.utilisation > 0 && options.utilisation < 1)) {
      throw BadInput("utilisation", "above 0 and below 1");
    }
    if (!(options.dwell_ms >= 0)) throw BadInput("dwell_ms", "at least 0");
    if (!(options.memory_ms > 0)) throw BadInput("memory_ms", "above 0");
  }

  const Options& options() const noexcept { return options_; }

  // The clock of least power at which the load is in time, for a GPU that has `clock_now`; the
  // highest if none is.
  template <class Cost>
  Plan plan(const Cost& cost, const GpuLoad& load, int clock_now, double now_ms) {
    order(load.waiting, now_ms);
    const int top = cost.clocks() - 1;
    Plan best{top, kNever, false};
    for (int clock = options_.below_knee ? 0 : knee(cost); clock <= top; ++clock) {
      const Demand d = demand(cost, load, clock);
      const bool fits = d.decode + d.prefill <= options_.utilisation &&
                        waiting_in_time(cost, clock_now, clock, d, now_ms) &&
                        late_in_time(cost, load, clock, d);
      if (fits && d.power_w >= best.power_w) break;  // power rises from here on
      if (fits) best = {clock, d.power_w, true};
      if (clock == top && !best.fits) best.power_w = d.power_w;
    }
    return best;
  }

  // A prompt that comes now, and can start in `ready_ms`, would have its first token in time behind
  // all that waits, if the clock went up as far as it can; tokens would stay in time.
  template <class Cost>
  bool could_serve(const Cost& cost, const GpuLoad& load, int model, const Prompt& prompt,
                   double ready_ms, int clock_target) const {
    const int top = cost.clocks() - 1;
    const Demand d = demand(cost, load, top);
    if (d.decode + d.prefill > options_.utilisation) return false;
    double queue_ms = prefill_ms(cost, model, prompt.tokens, prompt.cached, top);
    for (const Waiting& w : load.waiting) {
      queue_ms += prefill_ms(cost, w.model, w.tokens, w.cached, top);
    }
    double starts_ms = d.longest_ms;
    if (clock_target < top) starts_ms += cost.switch_ms();
    starts_ms += ready_ms;
    return starts_ms + queue_ms / (1 - d.decode) <= prompt.ttft_ms * (1 - options_.margin);
  }

  // The decodes that are due next would still start in time at this clock. What was released just
  // in time for a higher one would be late.
  template <class Cost>
  bool steps_fit(const Cost& cost, const GpuLoad& load, int clock, double now_ms) {
    groups_.clear();
    double busy_ms = now_ms;
    for (std::size_t i = 0; i < load.models.size(); ++i) {
      const ModelLoad& m = load.models[i];
      if (m.running == 0) continue;
      const local::StepWork w = decode_of(m);
      const double ms =
          cost.step(m.model, w, clock).latency_ms * (1 + 3 * cost.spread(m.model, w, clock));
      if (m.busy) {
        busy_ms += ms;
      } else {
        groups_.push_back({static_cast<int>(i), m.due_ms - options_.margin * m.tbt_ms, ms});
      }
    }
    return local::set_latest_starts(groups_) >= busy_ms;
  }

 private:
  struct Demand {
    double decode = 0;  // share of time
    double prefill = 0;
    double longest_ms = 0;  // step that cannot be interrupted
    double power_w = 0;
  };
  struct Due {
    double due_ms;
    const Waiting* prompt;
  };

  static local::StepWork decode_of(const ModelLoad& m) { return {m.running, m.context_mean, 0, 0}; }

  // The highest clock at which a prompt takes no more dynamic energy than at the lowest.
  template <class Cost>
  static int knee(const Cost& cost) {
    const local::StepWork w{0, 0, 1024, 0};
    const auto energy = [&](int clock) {
      const local::Price p = cost.step(0, w, clock);
      return p.latency_ms * p.power_w;
    };
    constexpr double kSame = 1.03;
    int found = 0;
    while (found < cost.clocks() - 1 && energy(found + 1) <= kSame * energy(0)) ++found;
    return found;
  }

  template <class Cost>
  Demand demand(const Cost& cost, const GpuLoad& load, int clock) const {
    Demand d;
    d.power_w = cost.idle_w(clock);
    for (const ModelLoad& m : load.models) {
      if (m.running > 0) {
        const local::Price p = cost.step(m.model, decode_of(m), clock);
        const double part = p.latency_ms / (m.tbt_ms * (1 - options_.margin));
        d.decode += part;
        d.power_w += part * p.power_w;
        d.longest_ms = std::max(d.longest_ms, p.latency_ms);
      }
      if (m.prompt_tokens < 1) continue;
      const local::StepWork w{0, 0, static_cast<int>(m.prompt_tokens), 0};
      const local::Price p = cost.step(m.model, w, clock);
      const double part = m.prompts_per_ms * p.latency_ms;
      d.prefill += part;
      d.power_w += part * p.power_w;
    }
    return d;
  }

  // The prompts that wait, in the order in which they will run: by deadline.
  void order(std::span<const Waiting> waiting, double now_ms) {
    due_.clear();
    for (const Waiting& w : waiting) {
      const double objective_ms = w.objective_ms * (1 - options_.margin);
      due_.push_back({local::rolled_deadline(w.since_ms, objective_ms, now_ms), &w});
    }
    std::sort(due_.begin(), due_.end(), [](const Due& a, const Due& b) {
      return a.due_ms != b.due_ms ? a.due_ms < b.due_ms : a.prompt->id < b.prompt->id;
    });
  }

  template <class Cost>
  bool waiting_in_time(const Cost& cost, int clock_now, int clock, const Demand& d,
                       double now_ms) const {
    const double late_ms = clock == clock_now ? 0 : cost.switch_ms();
    double queue_ms = 0;
    for (const Due& due : due_) {
      const Waiting& w = *due.prompt;
      queue_ms += prefill_ms(cost, w.model, w.tokens, w.cached, clock);
      if (late_ms + d.longest_ms + queue_ms / (1 - d.decode) > due.due_ms - now_ms) return false;
    }
    return true;
  }

  // Prompts like those seen of late would have their first token in time.
  template <class Cost>
  bool late_in_time(const Cost& cost, const GpuLoad& load, int clock, const Demand& d) const {
    const double free = 1 - d.decode;
    for (const ModelLoad& m : load.models) {
      const Prompt& p = m.hardest;
      if (p.tokens == 0) continue;
      // The clock may go up when such a prompt comes: it is lost time, not lost energy.
      const double top_ms = prefill_ms(cost, m.model, p.tokens, p.cached, cost.clocks() - 1);
      const double most_ms = p.ttft_ms * (1 - options_.margin);
      if (top_ms > most_ms) continue;  // no clock would help
      double need_ms = prefill_ms(cost, m.model, p.tokens, p.cached, clock) / free;
      if (options_.raise) need_ms = std::min(need_ms, cost.switch_ms() + top_ms / free);
      if (d.longest_ms + need_ms > most_ms) return false;
    }
    return true;
  }

  Options options_;
  std::vector<Due> due_;  // kept between calls
  std::vector<local::DecodeGroup> groups_;
};

}  // namespace festina::clock
