#pragma once
#include <algorithm>
#include <cstddef>
#include <numeric>
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
  double spread(int /*model*/, Phase phase) const { return phase == Phase::decode ? 0.01 : 0.02; }
};

inline double decode_ms(const Options& o, const Lane& l) {
  const Cost cost;
  const StepWork w{l.decodes, l.context_mean, 0, 0};
  return cost.latency_ms(l.model, w) * (1 + o.sigmas * cost.spread(l.model, Phase::decode));
}
inline double due_ms(const Options& o, const Lane& l) { return l.due_ms - o.margin * l.tbt_ms; }

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
