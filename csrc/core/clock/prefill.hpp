#pragma once
#include <algorithm>

#include "core/local/step_work.hpp"

namespace festina::clock {

// A clock's `Cost`, as csrc/core/local wants it.
template <class Cost>
struct AtClock {
  const Cost& cost;
  int clock;
  double latency_ms(int model, const local::StepWork& w) const {
    return cost.step(model, w, clock).latency_ms;
  }
};

// Time for a whole prompt behind `cached` tokens, in chunks.
template <class Cost>
double prefill_ms(const Cost& cost, int model, int tokens, int cached, int clock) {
  constexpr int kChunk = 2048;
  return local::prompt_ms(AtClock<Cost>{cost, clock}, model, std::max(1, tokens), cached, kChunk);
}

}  // namespace festina::clock
