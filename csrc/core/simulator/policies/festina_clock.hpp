#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/pace.hpp"
#include "core/simulator/cluster.hpp"

// Which clock one GPU runs at: the one of least power at which everything is in time, decodes at
// their pace. Up at once when an objective is at risk, down only after a dwell (DESIGN 4.2).
namespace festina::simulator {

struct ClockOptions {
  bool clocks = true;      // else the default clock
  bool below_knee = true;  // where only idle power falls; else not
  bool raise = true;       // on demand; else every prompt like those of late must find the clock up
  bool hysteresis = true;  // else down as soon as it pays
  double margin = 0.02;
  double utilisation = 0.8;  // planned for, at most
  double dwell_ms = 1000;
  double memory_ms = 30'000;  // of the load's average
};

class FestinaClock {
  static constexpr std::size_t kRecent = 16;

 public:
  struct Prompt {
    int tokens = 0;
    int cached = 0;
    float ttft_ms = 0;
  };
  // The prompts of one model that came to one GPU of late.
  struct Recent {
    std::array<Prompt, kRecent> prompts{};
    std::size_t next = 0;
    Prompt hardest;
    double per_ms = 0;
    double tokens = 0;
    double updated_ms = 0;
  };
  // One model's part of a GPU's load: what it holds, and what came; null where nothing did.
  struct Share {
    const Lane* lane;
    const Recent* recent;
  };
  // The clock for a load and the mean power then; `fits`: everything would be in time.
  struct Plan {
    int clock;
    double power_w;
    bool fits;
  };

  FestinaClock(const ClockOptions& options, int gpus)
      : options_(options), gpus_(static_cast<std::size_t>(gpus)) {}

  // A prompt came to this GPU.
  void arrived(Cluster& c, const Gpu& g, int r) {
    State& s = state(g);
    const Request& q = c.request(r);
    if (s.lanes.empty()) s.lanes.resize(static_cast<std::size_t>(c.models()));
    Recent& recent = s.lanes[static_cast<std::size_t>(q.model)];
    recent.prompts[recent.next++ % kRecent] = {q.input_tokens - q.cached_tokens, q.cached_tokens,
                                               q.ttft_ms};
    recent.hardest = hardest(c, q.model, recent);
    recent.per_ms = per_ms(c, recent) + 1.0 / options_.memory_ms;
    recent.tokens += 0.2 * (q.input_tokens - q.cached_tokens - recent.tokens);
    recent.updated_ms = c.now_ms();
    s.checked_ms = -kNever;
  }

  // The request would have its first token in time here, if the clock went up as far as it can, and
  // tokens would stay in time.
  bool could_serve(Cluster& c, const Gpu& g, int r) {
    shares_.clear();
    add_shares(g, shares_);
    const Demand d = demand(c, shares_, c.top_clock());
    if (d.decode + d.prefill > options_.utilisation) return false;
    const Request& q = c.request(r);
    double queue_ms = prefill_ms(c, q, c.top_clock());
    for (const auto& l : g.lanes) {
      for (const int w : l->waiting) queue_ms += prefill_ms(c, c.request(w), c.top_clock());
    }
    double ready_ms = d.longest_ms;
    if (g.clock_target < c.top_clock()) ready_ms += c.device().clock_switch_ms;
    const Lane* own = g.lane(q.model);
    if (own == nullptr || own->weights != Weights::ready) ready_ms += c.load_ms(q.model);
    return ready_ms + queue_ms / (1 - d.decode) <= q.ttft_ms * (1 - options_.margin);
  }

  // What the GPU's models ask of it, added to `shares`.
  void add_shares(const Gpu& g, std::vector<Share>& shares) const {
    const State& s = gpus_[static_cast<std::size_t>(g.index)];
    for (const auto& l : g.lanes) {
      const Recent* recent =
          s.lanes.empty() ? nullptr : &s.lanes[static_cast<std::size_t>(l->model)];
      shares.push_back({l.get(), recent});
    }
  }

  // The clock of least power at which the load is in time, for a GPU that has `clock_now`.
  Plan plan(const Cluster& c, std::span<const Share> shares, int clock_now) const {
    const std::vector<Waiting> waiting = waiting_of(c, shares);
    Plan best{c.top_clock(), kNever, false};
    for (int clock = options_.below_knee ? 0 : knee(c); clock <= c.top_clock(); ++clock) {
      const Demand d = demand(c, shares, clock);
      const bool fits = d.decode + d.prefill <= options_.utilisation &&
                        in_time(c, shares, waiting, clock_now, clock, d);
      if (fits && d.power_w >= best.power_w) break;  // power rises from here on
      if (fits) best = {clock, d.power_w, true};
      if (clock == c.top_clock() && !best.fits) best.power_w = d.power_w;
    }
    return best;
  }

  // Prompts per millisecond, by what came of late.
  double per_ms(const Cluster& c, const Recent& recent) const {
    return recent.per_ms * std::exp(-(c.now_ms() - recent.updated_ms) / options_.memory_ms);
  }

  // Sets the clock that the GPU should have, at most every few milliseconds.
  void govern(Cluster& c, Gpu& g) {
    if (!options_.clocks || !g.awake()) return;
    State& s = state(g);
    if (c.now_ms() - s.checked_ms < kCheckMs) return;
    s.checked_ms = c.now_ms();
    shares_.clear();
    add_shares(g, shares_);
    const int best = plan(c, shares_, g.clock).clock;
    if (best == g.clock_target) return;
    if (best > g.clock_target) {
      s.raised_ms = c.now_ms();
      return c.set_clock(g, best);
    }
    const double since_ms = c.now_ms() - std::max(g.clock_asked_ms, s.raised_ms);
    if (options_.hysteresis && since_ms < options_.dwell_ms) return;
    if (!steps_fit(c, g, best)) return;
    c.set_clock(g, best);
  }

 private:
  static constexpr double kCheckMs = 100;

  struct State {
    std::vector<Recent> lanes;
    double checked_ms = -kNever;
    double raised_ms = -kNever;
  };
  struct Waiting {
    double due_ms;
    int request;
  };
  struct Demand {
    double decode = 0;  // share of time
    double prefill = 0;
    double longest_ms = 0;  // step that cannot be interrupted
    double power_w = 0;
  };

  State& state(const Gpu& g) { return gpus_[static_cast<std::size_t>(g.index)]; }

  // Time for a whole prompt behind `cached` tokens, in chunks.
  static double prefill_ms(const Cluster& c, int model, int tokens, int cached, int clock) {
    constexpr int kChunk = 2048;
    return local::prompt_ms(StepCost{c.belief(), c.full_rung(), clock}, model, std::max(1, tokens),
                            cached, kChunk);
  }
  static double prefill_ms(const Cluster& c, const Request& q, int clock) {
    return prefill_ms(c, q.model, q.uncached(), q.cached(), clock);
  }

  // The highest clock at which a prompt takes no more dynamic energy than at the lowest.
  static int knee(const Cluster& c) {
    StepWork w;
    w.tokens = 1024;
    const auto energy = [&](int clock) {
      const Price p = c.belief().step(0, w, c.full_rung(), clock);
      return p.latency_ms * p.power_w;
    };
    constexpr double kSame = 1.03;
    int found = 0;
    while (found < c.top_clock() && energy(found + 1) <= kSame * energy(0)) ++found;
    return found;
  }

  Prompt hardest(const Cluster& c, int model, const Recent& recent) const {
    Prompt worst;
    double need = 0;
    for (const Prompt& p : recent.prompts) {
      if (p.tokens == 0) continue;
      const double ratio = prefill_ms(c, model, p.tokens, p.cached, c.top_clock()) / p.ttft_ms;
      if (ratio > need) {
        need = ratio;
        worst = p;
      }
    }
    return worst;
  }

  Demand demand(const Cluster& c, std::span<const Share> shares, int clock) const {
    Demand d;
    d.power_w = c.table().idle_w(clock);
    for (const Share& share : shares) {
      const Lane& l = *share.lane;
      if (!l.running.empty()) {
        const StepWork w =
            c.work(l, std::min(static_cast<int>(l.running.size()), c.setup().batch_max), {});
        const Price p = c.belief().step(l.model, w, c.full_rung(), clock);
        const double part = p.latency_ms / (l.tbt_ms * (1 - options_.margin));
        d.decode += part;
        d.power_w += part * p.power_w;
        d.longest_ms = std::max(d.longest_ms, p.latency_ms);
      }
      if (share.recent == nullptr || share.recent->tokens < 1) continue;
      StepWork w;
      w.tokens = static_cast<int>(share.recent->tokens);
      const Price p = c.belief().step(l.model, w, c.full_rung(), clock);
      const double part = per_ms(c, *share.recent) * p.latency_ms;
      d.prefill += part;
      d.power_w += part * p.power_w;
    }
    return d;
  }

  // The decodes that are due next would still start in time at this clock. What was released just
  // in time for a higher one would be late.
  bool steps_fit(const Cluster& c, const Gpu& g, int clock) {
    groups_.clear();
    double busy_ms = c.now_ms();
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const Lane& l = *g.lanes[i];
      if (l.running.empty()) continue;
      const int decodes = std::min(static_cast<int>(l.running.size()), c.setup().batch_max);
      const double ms = c.predict_ms(l, decodes, {}, c.full_rung(), clock) *
                        (1 + 3 * c.belief().spread(l.model, Phase::decode));
      if (l.busy) {
        busy_ms += ms;
      } else {
        groups_.push_back({static_cast<int>(i), l.due_ms - options_.margin * l.tbt_ms, ms});
      }
    }
    return local::set_latest_starts(groups_) >= busy_ms;
  }

  // The prompts that wait, in the order in which they will run: by deadline.
  std::vector<Waiting> waiting_of(const Cluster& c, std::span<const Share> shares) const {
    std::vector<Waiting> waiting;
    for (const Share& share : shares) {
      const Lane& l = *share.lane;
      if (l.weights != Weights::ready) continue;
      for (std::size_t k = 0; k < std::min<std::size_t>(l.waiting.size(), kRecent); ++k) {
        const Request& q = c.request(l.waiting[k]);
        const double objective_ms = q.ttft_ms * (1 - options_.margin);
        waiting.push_back(
            {local::rolled_deadline(q.sent_ms, objective_ms, c.now_ms()), l.waiting[k]});
      }
    }
    std::sort(waiting.begin(), waiting.end(), [](const Waiting& a, const Waiting& b) {
      return a.due_ms != b.due_ms ? a.due_ms < b.due_ms : a.request < b.request;
    });
    return waiting;
  }

  // Prompts that wait, and ones like those seen of late, would have their first token in time.
  bool in_time(const Cluster& c, std::span<const Share> shares, std::span<const Waiting> waiting,
               int clock_now, int clock, const Demand& d) const {
    const double free = 1 - d.decode;
    const double late_ms = clock == clock_now ? 0 : c.device().clock_switch_ms;
    double queue_ms = 0;
    for (const Waiting& w : waiting) {
      queue_ms += prefill_ms(c, c.request(w.request), clock);
      if (late_ms + d.longest_ms + queue_ms / free > w.due_ms - c.now_ms()) return false;
    }
    for (const Share& share : shares) {
      const Lane& l = *share.lane;
      if (share.recent == nullptr || share.recent->hardest.tokens == 0) continue;
      const Prompt& p = share.recent->hardest;
      // The clock may go up when such a prompt comes: it is lost time, not lost energy.
      const double top_ms = prefill_ms(c, l.model, p.tokens, p.cached, c.top_clock());
      const double most_ms = p.ttft_ms * (1 - options_.margin);
      if (top_ms > most_ms) continue;  // no clock would help
      double need_ms = prefill_ms(c, l.model, p.tokens, p.cached, clock) / free;
      if (options_.raise) need_ms = std::min(need_ms, c.device().clock_switch_ms + top_ms / free);
      if (d.longest_ms + need_ms > most_ms) return false;
    }
    return true;
  }

  ClockOptions options_;
  std::vector<State> gpus_;
  std::vector<local::DecodeGroup> groups_;  // kept between calls
  std::vector<Share> shares_;
};

}  // namespace festina::simulator
