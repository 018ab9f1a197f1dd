#pragma once
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "core/local/chooser.hpp"
#include "random_sample.hpp"

// What tests of the local rule share.
namespace sample {

using namespace festina::local;
using festina::Phase;

// A step costs more with every token, and with what is in the caches.
struct Cost {
  double latency_ms(int model, const StepWork& w) const {
    return 1.0 + model + 0.05 * w.decodes * (1 + w.context_mean / 1000) +
           0.02 * w.tokens * (1 + w.cached_mean / 1000);
  }
  double spread(int /*model*/, const StepWork& w) const {
    return w.phase() == Phase::decode ? 0.01 : 0.02;
  }
};

// A lane whose decodes fit one batch.
struct PlainLane {
  int model;
  int decodes;
  double context_mean;
  double due_ms;
  double tbt_ms;
  std::span<const Prompt> prompts;
};

// What a GPU that is not partitioned should do.
inline Choice choose(Chooser& chooser, const Options& o, std::span<const PlainLane> plain,
                     double memory_free, bool alone, double now_ms) {
  std::vector<Batch> batches(plain.size());
  std::vector<Lane> lanes;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const PlainLane& l = plain[i];
    batches[i] = {l.decodes, l.context_mean, l.due_ms - o.margin * l.tbt_ms};
    const std::size_t count = l.decodes > 0 ? 1 : 0;
    lanes.push_back({l.model, std::span(batches).subspan(i, count), l.prompts, memory_free, alone});
  }
  return chooser.choose(lanes, Cost{}, 1, now_ms);
}

inline double decode_ms(const Options& o, const PlainLane& l) {
  const Cost cost;
  const StepWork w{l.decodes, l.context_mean, 0, 0};
  return cost.latency_ms(l.model, w) * (1 + o.sigmas * cost.spread(l.model, w));
}
inline double due_ms(const Options& o, const PlainLane& l) {
  return l.due_ms - o.margin * l.tbt_ms;
}

// The best first start of any order: what set_latest_starts should find.
inline double best_first_start(const std::vector<DecodeGroup>& groups) {
  std::vector<std::size_t> order(groups.size());
  std::iota(order.begin(), order.end(), 0U);
  double best = -kNever;
  do {
    double start_ms = kNever;
    for (std::size_t i = order.size(); i-- > 0;) {
      const DecodeGroup& g = groups[order[i]];
      start_ms = std::min(start_ms, g.due_ms) - g.latency_ms;
    }
    best = std::max(best, start_ms);
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

}  // namespace sample
