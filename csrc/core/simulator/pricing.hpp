#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/local/step_work.hpp"
#include "core/profile_table/view.hpp"
#include "core/simulator/types.hpp"

// What a step costs: by the profile, as policies see it, and in truth.
namespace festina::simulator {

using local::price;
using local::Price;
using local::StepWork;

// The profile with what was learned from steps that ran: one factor per (deployment, phase).
class Belief {
 public:
  Belief(ProfileView table, const std::vector<Deployment>& deployments, bool learns)
      : table_(table), learns_(learns) {
    for (const Deployment& d : deployments) profile_.push_back(d.profile);
    learnt_.resize(deployments.size(), {Factor{}, Factor{}});
  }

  const ProfileView& table() const noexcept { return table_; }
  int profile(int model) const noexcept { return profile_[static_cast<std::size_t>(model)]; }

  Price step(int model, const StepWork& work, int rung, int clock) const {
    Price p = price(table_, profile(model), work, rung, clock);
    p.latency_ms *= factor(model, work.phase());
    return p;
  }
  double factor(int model, Phase phase) const noexcept { return learnt(model, phase).value; }
  // Relative standard deviation of steps about what `step` says.
  double spread(int model, Phase phase) const noexcept {
    return std::sqrt(learnt(model, phase).variance);
  }

  // A step took `actual_ms` where `step` had said `predicted_ms`.
  void observe(int model, Phase phase, double predicted_ms, double actual_ms) {
    if (!learns_ || predicted_ms <= 0) return;
    Factor& f = learnt_[static_cast<std::size_t>(model)][static_cast<std::size_t>(phase)];
    const double gain = std::max(kGainMin, 1.0 / (2.0 + f.count));
    const double surprise = std::log(std::clamp(actual_ms / predicted_ms, 0.5, 2.0));
    f.value *= std::exp(gain * surprise);
    f.variance += kGainMin * (surprise * surprise - f.variance);
    f.value = std::clamp(f.value, 0.25, 4.0);
    f.count += 1;
  }

 private:
  static constexpr double kGainMin = 1.0 / 16;
  static constexpr double kVarianceGuess = 0.05 * 0.05;
  struct Factor {
    double value = 1;
    double count = 0;
    double variance = kVarianceGuess;
  };
  const Factor& learnt(int model, Phase phase) const noexcept {
    return learnt_[static_cast<std::size_t>(model)][static_cast<std::size_t>(phase)];
  }
  ProfileView table_;
  bool learns_;
  std::vector<int> profile_;
  std::vector<std::array<Factor, kPhases>> learnt_;
};

// The belief at one operating point, as csrc/core/local wants it.
struct StepCost {
  const Belief& belief;
  int rung;
  int clock;
  double latency_ms(int model, const StepWork& w) const {
    return belief.step(model, w, rung, clock).latency_ms;
  }
  double spread(int model, const StepWork& w) const { return belief.spread(model, w.phase()); }
};

}  // namespace festina::simulator
