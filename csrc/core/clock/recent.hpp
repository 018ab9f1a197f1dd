#pragma once
#include <array>
#include <cmath>
#include <cstddef>

#include "core/clock/prefill.hpp"
#include "core/clock/types.hpp"

namespace festina::clock {

// The prompts of one model that came to one GPU of late.
class Recent {
 public:
  // `Cost` as `Planner` wants it.
  template <class Cost>
  void add(const Cost& cost, int model, const Prompt& prompt, double memory_ms, double now_ms) {
    prompts_[next_++ % prompts_.size()] = prompt;
    hardest_ = hardest_of(cost, model);
    per_ms_ = per_ms(memory_ms, now_ms) + 1.0 / memory_ms;
    tokens_ += 0.2 * (prompt.tokens - tokens_);
    updated_ms_ = now_ms;
  }

  // Prompts per millisecond: an exponential average.
  double per_ms(double memory_ms, double now_ms) const {
    return per_ms_ * std::exp(-(now_ms - updated_ms_) / memory_ms);
  }
  void add_to(ModelLoad& load, double memory_ms, double now_ms) const {
    load.prompts_per_ms = per_ms(memory_ms, now_ms);
    load.prompt_tokens = tokens_;
    load.hardest = hardest_;
  }

 private:
  // The one that takes the largest share of its objective at the highest clock.
  template <class Cost>
  Prompt hardest_of(const Cost& cost, int model) const {
    Prompt worst;
    double need = 0;
    for (const Prompt& p : prompts_) {
      if (p.tokens == 0) continue;
      const double ratio =
          prefill_ms(cost, model, p.tokens, p.cached, cost.clocks() - 1) / p.ttft_ms;
      if (ratio > need) {
        need = ratio;
        worst = p;
      }
    }
    return worst;
  }

  std::array<Prompt, 16> prompts_{};
  std::size_t next_ = 0;
  Prompt hardest_;
  double per_ms_ = 0;
  double tokens_ = 0;
  double updated_ms_ = 0;
};

}  // namespace festina::clock
