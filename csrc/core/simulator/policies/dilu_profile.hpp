#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/residency.hpp"

// What Dilu's profiler finds for a model (arXiv 2503.05130, section 3.2): the SMs it asks for, the
// SMs it may grow to, and its batch.
namespace festina::simulator {

struct DiluProfileOptions {
  double slo_share = 0.6;   // of the objectives that a step, or a mean prompt, may take
  double limit_factor = 4;  // limit over request
  double kv_headroom = 2;   // of the declared load's KV cache, part of the memory it asks for
};

struct DiluQuota {
  int request = 0;                // rung
  int limit = 0;                  // rung
  std::vector<int> batch_tokens;  // by rung: largest step within the objective
  double requests_per_s = 0;      // that one instance serves at its request
  double memory_bytes = 0;
};

class DiluProfile {
 public:
  DiluProfile(const Cluster& cluster, const DiluProfileOptions& options)
      : c_(cluster), options_(options) {}

  // The point of most throughput per SM among those that meet the objectives: as throughput grows
  // more slowly than SMs, that is the one of fewest SMs. The most SMs where none meets them.
  DiluQuota quota(int model) const {
    DiluQuota q;
    for (int rung = 0; rung < c_.table().rungs(); ++rung) {
      q.batch_tokens.push_back(batch_tokens(model, rung));
    }
    q.request = c_.full_rung();
    for (int rung = c_.full_rung(); rung >= 0; --rung) {
      if (meets(model, rung, q.batch_tokens[at(rung)])) q.request = rung;
    }
    const double limit_sms = options_.limit_factor * c_.table().sms(q.request);
    q.limit = c_.table().rung_within(static_cast<int>(limit_sms));
    q.requests_per_s = capacity(model, q.request);
    q.memory_bytes = c_.weight_bytes(model) +
                     options_.kv_headroom * declared_kv_bytes(c_, model, c_.hint(model).tbt_ms) +
                     c_.kv_bytes(model, c_.hint(model).input_tokens + c_.hint(model).output_tokens);
    return q;
  }

 private:
  static constexpr std::array<int, 6> kBatches{64, 128, 256, 512, 1024, 2048};  // tokens

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  double step_ms(int model, int tokens, int decodes, int rung) const {
    const Hint& h = c_.hint(model);
    StepWork w;
    w.tokens = tokens;
    w.decodes = decodes;
    w.context_mean = h.input_tokens + h.output_tokens / 2;
    return c_.belief().step(model, w, rung, c_.default_clock()).latency_ms;
  }

  int batch_tokens(int model, int rung) const {
    int best = kBatches.front();
    for (const int tokens : kBatches) {
      if (step_ms(model, tokens, 1, rung) <= options_.slo_share * c_.hint(model).tbt_ms) {
        best = tokens;
      }
    }
    return best;
  }

  bool meets(int model, int rung, int tokens) const {
    const Hint& h = c_.hint(model);
    const double step = step_ms(model, tokens, 1, rung);
    const double steps = std::max(1.0, h.input_tokens / tokens);
    return step <= options_.slo_share * h.tbt_ms && steps * step <= options_.slo_share * h.ttft_ms;
  }

  // A request costs its prompt, and its share of decode steps of the largest batch in time.
  double capacity(int model, int rung) const {
    const Hint& h = c_.hint(model);
    double token_ms = kNever;
    for (int batch = 1; batch <= c_.setup().batch_max; batch *= 2) {
      const double step = step_ms(model, 0, batch, rung);
      if (step <= options_.slo_share * h.tbt_ms) token_ms = std::min(token_ms, step / batch);
    }
    if (token_ms == kNever) token_ms = step_ms(model, 0, 1, rung);
    const double prompt_ms = step_ms(model, std::max(1, static_cast<int>(h.input_tokens)), 0, rung);
    return 1000.0 / (prompt_ms + h.output_tokens * token_ms);
  }

  const Cluster& c_;
  DiluProfileOptions options_;
};

}  // namespace festina::simulator
