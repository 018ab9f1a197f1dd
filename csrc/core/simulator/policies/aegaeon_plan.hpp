#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "core/simulator/cluster.hpp"

// How many GPUs prefill and how many decode: what an operator of Aegaeon settles before the start,
// from the declared load alone.
namespace festina::simulator {

struct Split {
  int prefill = 1;
  int decode = 1;
};

// Share of a prefill GPU's memory that weights leave free, for the caches of a few prompts.
inline constexpr double kPrefillReserve = 0.05;

struct PlanOptions {
  double kv_reserve = 0.15;  // share of a decode GPU's memory that weights leave free
  double wait_miss = 0.3;    // share of the prompts that wait for others that miss theirs
  double utilisation = 0.8;  // of either kind of GPU, at most
  double fill = 4;           // weights in use at once / memory of the decode GPUs, at most
  double worth = 0.03;       // attainment, as expected, that is given up for fewer GPUs
};

// Searches all splits for the best expected attainment, and takes the fewest GPUs that come close.
class AegaeonPlan {
 public:
  AegaeonPlan(const Cluster& c, const PlanOptions& options) : c_(c), options_(options) {}

  Split best() const {
    std::vector<Split> splits;
    std::vector<double> late;
    for (int total = 2; total <= c_.gpus(); ++total) {
      splits.push_back({1, total - 1});
      late.push_back(kNever);
      for (int prefill = 1; prefill < total; ++prefill) {
        const double share = late_share({prefill, total - prefill});
        if (share >= late.back()) continue;
        late.back() = share;
        splits.back() = {prefill, total - prefill};
      }
    }
    const double least = *std::min_element(late.begin(), late.end());
    std::size_t chosen = 0;
    while (late[chosen] > least + options_.worth) ++chosen;
    return splits[chosen];
  }

  // Share of the requests that are expected to miss an objective; above 1 where the split cannot
  // carry the load at all, the more so the further it is from it.
  double late_share(const Split& split) const {
    const double memory = c_.device().memory_bytes;
    const std::vector<double> none(static_cast<std::size_t>(c_.models()), 0.0);
    const Pool prompts = pool(split.prefill * memory * (1 - kPrefillReserve), none);
    const Pool decodes =
        pool(split.decode * memory * (1 - options_.kv_reserve), holds_s(split.decode));
    double rate = 0, busy = 0, late = 0;
    for (int m = 0; m < c_.models(); ++m) {
      const Hint& h = c_.hint(m);
      const auto at = static_cast<std::size_t>(m);
      rate += h.requests_per_s;
      busy += h.requests_per_s * (prefill_ms(m) + prompts.miss[at] * c_.load_ms(m)) / 1000.0;
      // The load that a cold decode waits for began when its prompt came.
      const double waits = decodes.miss[at] * std::max(0.0, 1 - prefill_ms(m) / c_.load_ms(m));
      const double cold = std::min(1.0, waits + crowded(decodes.fill));
      late += h.requests_per_s * (prompts.miss[at] * hurried(h) + cold * brief(h));
    }
    const double prefill_busy = busy / split.prefill;
    const double decode_busy = decode_share() / split.decode;
    late = late / std::max(rate, 1e-9) + options_.wait_miss * prefill_busy;
    return late + kOverload * std::max(0.0, prefill_busy - options_.utilisation) +
           kOverload * std::max(0.0, decode_busy - options_.utilisation) +
           std::max(0.0, decodes.fill - options_.fill);
  }

 private:
  static constexpr double kOverload = 10;  // weight of work beyond what a GPU can do

  // Share of prompts that have less time to their first token than a load takes (below 1,024
  // tokens in and 350 out it is at most 400 ms), and of outputs so short that their 99th percentile
  // allows no long gap; lengths taken as exponential.
  static double hurried(const Hint& h) {
    return std::expm1(-1024 / std::max(1.0, h.input_tokens)) *
           std::expm1(-350 / std::max(1.0, h.output_tokens));
  }
  static double brief(const Hint& h) { return -std::expm1(-100 / std::max(1.0, h.output_tokens)); }

  // Share of requests whose batch is preempted, or not there, where the weights in use fill `fill`
  // times the memory on average: below 1 too, as their number varies. Fitted to simulations.
  static double crowded(double fill) { return std::clamp(0.45 * (fill - 0.6), 0.0, 0.7); }

  // A pool of memory that keeps the weights used last.
  struct Pool {
    std::vector<double> miss;  // share of the requests that find no weights, by model
    double fill = 0;           // weights in use at once / memory
  };

  // Che's approximation: weights stay for one time span after their last use, the same for all
  // models, so long that on average they fill the memory. `hold_s` is how long a use lasts.
  Pool pool(double bytes, const std::vector<double>& hold_s) const {
    const auto filled = [&](double span_s) {
      double sum = 0;
      for (int m = 0; m < c_.models(); ++m) sum += c_.weight_bytes(m) * resident(m, hold_s, span_s);
      return sum;
    };
    double low = 0, high = 1e7;
    if (filled(high) > bytes) {
      for (int step = 0; step < 60; ++step) {
        const double middle = (low + high) / 2;
        (filled(middle) > bytes ? high : low) = middle;
      }
    } else {
      low = high;
    }
    Pool found;
    for (int m = 0; m < c_.models(); ++m) {
      found.miss.push_back(low >= 1e7 ? 0.0 : 1 - resident(m, hold_s, low));
    }
    found.fill = filled(0) / bytes;
    return found;
  }
  double resident(int model, const std::vector<double>& hold_s, double span_s) const {
    const double stay_s = hold_s[static_cast<std::size_t>(model)] + span_s;
    return -std::expm1(-c_.hint(model).requests_per_s * stay_s);
  }

  double prefill_ms(int model) const {
    StepWork w;
    w.tokens = std::max(1, static_cast<int>(c_.hint(model).input_tokens));
    return c_.belief().step(model, w, c_.full_rung(), c_.default_clock()).latency_ms;
  }
  double decode_ms(int model, double batch) const {
    StepWork w;
    w.decodes = std::max(1, static_cast<int>(std::lround(batch)));
    w.context_mean = c_.hint(model).input_tokens + c_.hint(model).output_tokens / 2;
    return c_.belief().step(model, w, c_.full_rung(), c_.default_clock()).latency_ms;
  }

  // GPUs that decodes need, in the batches that gather over a few turns.
  double decode_share() const {
    constexpr double kPaceMs = 400;
    double sum = 0;
    for (int m = 0; m < c_.models(); ++m) {
      const double tokens_per_s = c_.hint(m).requests_per_s * c_.hint(m).output_tokens;
      const double steps_per_s = std::min(1000.0 / kPaceMs, tokens_per_s);
      sum += steps_per_s * decode_ms(m, tokens_per_s * kPaceMs / 1000.0) / 1000.0;
    }
    return sum;
  }

  // How long a request decodes, where the models in use on one GPU take turns token by token.
  std::vector<double> holds_s(int decode_gpus) const {
    constexpr int kRounds = 20;
    std::vector<double> hold(static_cast<std::size_t>(c_.models()), 0.0);
    double round_ms = 0;
    for (int i = 0; i < kRounds; ++i) {
      double next_ms = 0;
      for (int m = 0; m < c_.models(); ++m) {
        const double step_ms = decode_ms(m, 1);
        double& hold_s = hold[static_cast<std::size_t>(m)];
        hold_s = c_.hint(m).output_tokens * std::clamp(round_ms, step_ms, 100.0) / 1000.0;
        next_ms += step_ms * resident(m, hold, 0) / decode_gpus;
      }
      round_ms = next_ms;
    }
    return hold;
  }

  const Cluster& c_;
  PlanOptions options_;
};

// Fills GPUs [first, last) with weights, those used most for their size first, each to the GPU with
// the least load that has room.
inline void preload_pool(Cluster& c, int first, int last, double reserve) {
  std::vector<int> order(static_cast<std::size_t>(c.models()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&c](int a, int b) {
    return c.hint(a).requests_per_s / c.weight_bytes(a) >
           c.hint(b).requests_per_s / c.weight_bytes(b);
  });
  const double usable = c.device().memory_bytes * (1 - reserve);
  std::vector<double> rate(static_cast<std::size_t>(c.gpus()), 0.0);
  for (const int m : order) {
    int best = kNone;
    for (int i = first; i < last; ++i) {
      if (c.gpu(i).weight_bytes + c.weight_bytes(m) > usable) continue;
      const auto at = static_cast<std::size_t>(i);
      if (best == kNone || rate[at] < rate[static_cast<std::size_t>(best)]) best = i;
    }
    if (best == kNone) continue;
    c.preload(c.gpu(best), m);
    rate[static_cast<std::size_t>(best)] += c.hint(m).requests_per_s * c.hint(m).output_tokens;
  }
}

}  // namespace festina::simulator
