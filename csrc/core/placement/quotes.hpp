#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/placement/cluster.hpp"

// What one request costs on each class of GPU, read from the profiles once per request: a few dozen
// figures that the scan over all GPUs then only looks up.
namespace festina::placement {

// The request alone on an awake GPU of one class, at one clock.
struct Alone {
  float prefill_ms;  // with the profile's error on top
  float step_ms;     // of its last decode step, likewise
  float busy_ms;     // how long it keeps the GPU busy, plain
  float prefill_j;
  float decode_j;
  bool possible;  // by the plain figures, with no margin
};

inline Query query_of(const Cluster& cluster, const Request& request) {
  const auto input = static_cast<float>(request.input_tokens);
  const auto output = static_cast<float>(request.output_tokens);
  return {request.slo.ttft_ms * cluster.usable(),
          request.slo.tbt_ms * cluster.usable(),
          input + output,
          input + output / 2,
          input + output,
          output};
}

// Figures of the request alone at every clock of `of`, on `rung`. The decode steps run at batch 1.
class AloneTable {
 public:
  AloneTable(const Cluster& cluster, const GpuClass& of, const Request& request, const Query& q)
      : cluster_(cluster), of_(of), request_(request), output_(q.output_tokens) {
    const int model = cluster.profile_model(request.model, of);
    prefill_ =
        of.profile.locate(model, Phase::prefill, static_cast<float>(request.input_tokens), 0);
    mean_ = of.profile.locate(model, Phase::decode, 1, q.context_mean);
    last_ = of.profile.locate(model, Phase::decode, 1, q.context_last);
  }

  Alone at(int rung, int clock) const {
    const Estimate prefill = of_.profile.estimate(prefill_, rung, clock);
    const Estimate mean = of_.profile.estimate(mean_, rung, clock);
    const Estimate last = of_.profile.estimate(last_, rung, clock);
    const bool whole =
        cluster_.options.policy == Policy::paper || !cluster_.options.marginal_energy;
    const float idle_w = whole ? of_.profile.idle_w(clock) : 0.0F;
    return {cluster_.upper_ms(prefill),
            cluster_.upper_ms(last),
            prefill.latency_ms + output_ * mean.latency_ms,
            prefill.latency_ms * (prefill.power_w + idle_w) / 1000.0F,
            output_ * mean.latency_ms * (mean.power_w + idle_w) / 1000.0F,
            prefill.latency_ms <= request_.slo.ttft_ms && last.latency_ms <= request_.slo.tbt_ms};
  }

 private:
  const Cluster& cluster_;
  const GpuClass& of_;
  const Request& request_;
  float output_;
  WorkPoint prefill_, mean_, last_;
};

// The quotes of one request, for GPUs that hold its model and for those that do not.
struct QuoteBook {
  Quotes holders;
  Quotes guests;
  std::vector<Alone> alone;  // [class][clock]
  bool possible = false;     // some class could meet the objectives when idle
  float guest_least_j = kNever;
  float prefill_least_ms = kNever;  // of any class at any clock

  void reset(const Cluster& cluster) {
    const auto n = cluster.classes.size() * static_cast<std::size_t>(cluster.quotes_per_class());
    holders.reset(n);
    guests.reset(n);
    alone.resize(cluster.classes.size() * static_cast<std::size_t>(cluster.clocks_max));
    possible = false;
    guest_least_j = kNever;
    prefill_least_ms = kNever;
  }
};

// Quotes of the `festina` form.
class FestinaQuotes {
 public:
  FestinaQuotes(const Cluster& cluster, const Request& request, const Query& query, QuoteBook& book)
      : cluster_(cluster), request_(request), query_(query), book_(book) {
    book.reset(cluster);
    for (std::size_t c = 0; c < cluster.classes.size(); ++c) {
      const GpuClass& of = cluster.classes[c];
      if (of.gpus > 0 && cluster.profile_model(request.model, of) >= 0) quote(c, of);
    }
  }

  // The request at `clock` on an awake GPU that runs nothing and is at `now`.
  static float idle_gpu_j(const Cluster& cluster, const GpuClass& of, const Alone& alone, int now,
                          int clock) {
    const float work_j = alone.prefill_j + alone.decode_j;
    if (!cluster.options.marginal_energy || !cluster.options.charge_raise) return work_j;
    const float added_w = of.profile.idle_w(clock) - of.profile.idle_w(now);
    return work_j + added_w * alone.busy_ms / 1000.0F;
  }

 private:
  void quote(std::size_t index, const GpuClass& of) {
    const AloneTable table(cluster_, of, request_, query_);
    Alone* alone = &book_.alone[index * static_cast<std::size_t>(cluster_.clocks_max)];
    for (int clock = 0; clock < of.clocks(); ++clock) {
      alone[clock] = table.at(of.full_rung, clock);
      book_.possible = book_.possible || alone[clock].possible;
      book_.prefill_least_ms = std::min(book_.prefill_least_ms, alone[clock].prefill_ms);
    }
    const layout::Model& model = of.profile.model(cluster_.profile_model(request_.model, of));
    const auto base = index * static_cast<std::size_t>(cluster_.quotes_per_class());
    const auto stride = static_cast<std::size_t>(cluster_.clocks_max);
    for (int clock = 0; clock < of.clocks(); ++clock) {
      const auto busy = base + static_cast<std::size_t>(clock);
      const Alone& a = alone[clock];
      set(book_.holders, busy, a.prefill_ms, 0.0F, a.prefill_j, clock);
      set(book_.guests, busy, a.prefill_ms + load_ms(model), a.step_ms,
          a.prefill_j + a.decode_j + load_j(of, model, clock), clock);
      quote_idle(of, model, alone, clock, busy + stride);
    }
    quote_parked(of, model, alone, base + 2 * stride);
  }

  // An awake GPU that runs nothing: it takes the clock that is cheapest for this request alone, and
  // is charged for the idle power that this clock adds.
  void quote_idle(const GpuClass& of, const layout::Model& model, const Alone* alone, int now,
                  std::size_t at) {
    const int first = cluster_.options.raise_clock && !of.fixed_clock ? of.clock_least : now;
    const int last = cluster_.options.raise_clock ? of.top_from(now) : now;
    const auto energy_j = [&](int clock) {
      return idle_gpu_j(cluster_, of, alone[clock], now, clock);
    };
    const int clock = cheapest(alone, first, last, energy_j);
    const float total_j = energy_j(clock);
    const Alone& a = alone[clock];
    set(book_.holders, at, a.prefill_ms, a.step_ms, total_j, clock);
    set(book_.guests, at, a.prefill_ms + load_ms(model), a.step_ms,
        total_j + load_j(of, model, clock), clock);
  }

  // A parked GPU: also pays for being awake, as long as a wake is expected to last.
  void quote_parked(const GpuClass& of, const layout::Model& model, const Alone* alone,
                    std::size_t at) {
    const double start_ms = model.wake_ms + model.load_ms;
    const auto energy_j = [&](int clock) {
      const double awake_w = of.profile.idle_w(clock) - of.profile.header().parked_w;
      const double awake_ms = start_ms + std::max(static_cast<double>(alone[clock].busy_ms),
                                                  cluster_.options.wake_stay_ms);
      return alone[clock].prefill_j + alone[clock].decode_j +
             static_cast<float>(awake_w * awake_ms / 1000.0);
    };
    const int clock = cheapest(alone, of.clock_least, of.clock_top, energy_j);
    set(book_.guests, at, alone[clock].prefill_ms + static_cast<float>(start_ms),
        alone[clock].step_ms, energy_j(clock), clock);
  }

  static float load_ms(const layout::Model& model) { return static_cast<float>(model.load_ms); }
  // Profiles do not say what copying weights draws; the idle power over that time stands for it.
  static float load_j(const GpuClass& of, const layout::Model& model, int clock) {
    return load_ms(model) * of.profile.idle_w(clock) / 1000.0F;
  }

  // The clock in [first, last] of least energy that meets the objectives; `last` where none does.
  template <class Energy>
  int cheapest(const Alone* alone, int first, int last, const Energy& energy_j) const {
    int best = last;
    float best_j = kNever;
    for (int clock = first; clock <= last; ++clock) {
      const bool meets = alone[clock].prefill_ms <= query_.ttft_max_ms &&
                         alone[clock].step_ms <= query_.tbt_max_ms;
      const float j = meets ? energy_j(clock) : kNever;
      if (j < best_j) {
        best_j = j;
        best = clock;
      }
    }
    return best;
  }

  void set(Quotes& quotes, std::size_t at, float prefill_ms, float round_ms, float energy_j,
           int clock) {
    quotes.prefill_ms[at] = prefill_ms;
    quotes.round_ms[at] = round_ms;
    quotes.energy_j[at] = energy_j;
    quotes.clock[at] = clock;
    if (&quotes == &book_.guests) book_.guest_least_j = std::min(book_.guest_least_j, energy_j);
  }

  const Cluster& cluster_;
  const Request& request_;
  const Query& query_;
  QuoteBook& book_;
};

// Quotes of the `paper` form: Power(f) x Latency(f, S, in, out) for every rung and clock.
inline void quote_paper(const Cluster& cluster, const Request& request, const Query& query,
                        QuoteBook& book) {
  book.reset(cluster);
  for (std::size_t index = 0; index < cluster.classes.size(); ++index) {
    const GpuClass& of = cluster.classes[index];
    if (of.gpus == 0 || cluster.profile_model(request.model, of) < 0) continue;
    const AloneTable table(cluster, of, request, query);
    for (int rung = 0; rung < of.profile.rungs(); ++rung) {
      for (int clock = 0; clock < of.clocks(); ++clock) {
        const Alone a = table.at(rung, clock);
        const auto at = index * static_cast<std::size_t>(cluster.quotes_per_class()) +
                        static_cast<std::size_t>(rung * cluster.clocks_max + clock);
        book.holders.prefill_ms[at] = a.prefill_ms;
        book.holders.round_ms[at] = a.step_ms;
        book.holders.energy_j[at] = a.prefill_j + a.decode_j;
        book.holders.clock[at] = clock;
        book.possible = book.possible || a.possible;
      }
    }
  }
}

}  // namespace festina::placement
