#pragma once
#include <algorithm>

#include "core/profile_table/view.hpp"

// What a step has to do, and what it costs by the profile.
namespace festina::local {

// Prompts, decodes, or both in one pass over the weights.
struct StepWork {
  int decodes = 0;
  double context_mean = 0;  // tokens in the cache of each decode
  int tokens = 0;           // of prompts
  double cached_mean = 0;   // tokens in the cache of each prompt

  Phase phase() const noexcept { return tokens > 0 ? Phase::prefill : Phase::decode; }
};

struct Price {
  double latency_ms;
  double power_w;  // dynamic
  double bytes_per_s;
  double spread;  // relative error of the latency
};

// A mixed step is a prefill of all its tokens, plus the time in which its decodes read their
// caches.
inline Price price(const ProfileView& table, int profile, const StepWork& work, int rung,
                   int clock) {
  const auto decodes = static_cast<float>(work.decodes);
  if (work.tokens == 0) {
    const Estimate e = table.estimate(profile, Phase::decode, rung, clock, decodes,
                                      static_cast<float>(work.context_mean));
    return {e.latency_ms, e.power_w, e.bytes_per_s, e.spread};
  }
  const Estimate p = table.estimate(profile, Phase::prefill, rung, clock,
                                    static_cast<float>(work.tokens) + decodes,
                                    static_cast<float>(work.cached_mean));
  if (work.decodes == 0) return {p.latency_ms, p.power_w, p.bytes_per_s, p.spread};
  const Estimate all = table.estimate(profile, Phase::decode, rung, clock, decodes,
                                      static_cast<float>(work.context_mean));
  const Estimate bare = table.estimate(profile, Phase::decode, rung, clock, decodes, 0);
  const double read_ms = std::max(0.0F, all.latency_ms - bare.latency_ms);
  const double read_mj = std::max(0.0, static_cast<double>(all.latency_ms) * all.power_w -
                                           static_cast<double>(bare.latency_ms) * bare.power_w);
  const double latency_ms = p.latency_ms + read_ms;
  return {latency_ms, (static_cast<double>(p.latency_ms) * p.power_w + read_mj) / latency_ms,
          p.bytes_per_s, p.spread};
}

// Time for a whole prompt behind `cached` tokens, in chunks: the middle one stands for all, because
// attention grows with what is cached. `Cost` as `Chooser` wants it.
template <class Cost>
double prompt_ms(const Cost& cost, int model, int tokens, double cached, int chunk_tokens) {
  if (tokens <= chunk_tokens) return cost.latency_ms(model, StepWork{0, 0, tokens, cached});
  const double middle = cached + (tokens - chunk_tokens) / 2.0;
  return cost.latency_ms(model, StepWork{0, 0, chunk_tokens, middle}) * tokens / chunk_tokens;
}

}  // namespace festina::local
