#pragma once
#include <cstddef>
#include <span>

#include "core/local/step_work.hpp"

// What steps cost on a device that serves.
namespace festina::local {

// The stand-in for a profile: milliseconds linear in the work, never falling.
struct LinearCost {
  double fixed_ms = 0;
  double token_ms = 0;    // per prompt token
  double decode_ms = 0;   // per decoding sequence
  double context_ms = 0;  // per token in the cache
  double spread = 0;

  double latency_ms(const StepWork& w) const noexcept {
    constexpr double kLeastMs = 0.01;
    const double ms = fixed_ms + token_ms * w.tokens + decode_ms * w.decodes +
                      context_ms * (w.context_mean * w.decodes + w.cached_mean);
    return ms > kLeastMs ? ms : kLeastMs;
  }
};

// One model at the device's operating point: its place in the profile, or the stand-in.
struct ModelCost {
  const ProfileView* table = nullptr;  // with the corrections of steps that ran; null: `linear`
  int profile = 0;
  int rung = 0;
  int clock = 0;
  LinearCost linear;

  double latency_ms(const StepWork& w) const {
    return table != nullptr ? price(*table, profile, w, rung, clock).latency_ms
                            : linear.latency_ms(w);
  }
  double spread(const StepWork& w) const {
    return table != nullptr ? price(*table, profile, w, rung, clock).spread : linear.spread;
  }
};

// All models, by number: a `Cost` of `Chooser`.
struct ModelCosts {
  std::span<const ModelCost> models;

  double latency_ms(int model, const StepWork& w) const { return at(model).latency_ms(w); }
  double spread(int model, const StepWork& w) const { return at(model).spread(w); }
  const ModelCost& at(int model) const { return models[static_cast<std::size_t>(model)]; }
};

}  // namespace festina::local
