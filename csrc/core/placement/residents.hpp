#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/placement/cluster.hpp"

// What a GPU will hold once its reservations have arrived, and what a decode round, the queue and
// one more sequence cost there.
namespace festina::placement {

class Residents {
 public:
  // One decode step.
  struct Step {
    float ms;
    float j;
  };

  Residents(const Cluster& cluster, const Gpu& gpu)
      : cluster_(cluster), gpu_(gpu), class_(cluster.class_of(gpu)) {
    collect();
    options().policy == Policy::paper ? measure_paper() : measure();
  }

  const std::vector<Load>& loads() const { return loads_; }
  bool holds(int model) const {
    return std::any_of(loads_.begin(), loads_.end(),
                       [model](const Load& load) { return load.model == model; });
  }
  bool busy() const { return busy_; }
  int clock() const { return clock_; }  // that the GPU has, or is about to have
  int clock_top() const { return top_; }
  float stretch() const { return stretch_; }
  float wait_ms() const { return wait_ms_; }
  float tbt_max_ms() const { return tbt_max_ms_; }
  double reserved_tokens() const { return reserved_tokens_; }
  bool queue_full() const { return waiting_ >= options().queue_max; }
  // One step of every resident.
  float round_ms() const { return rounds_[static_cast<std::size_t>(clock_)].ms; }

  // With one more sequence of `load` at `clock`: the round of all residents, and the joules of an
  // output token beyond what the residents draw now. Linear in the context that it brings.
  Raise joined(const Load& load, int clock) const {
    const double far = cluster_.deployments[static_cast<std::size_t>(load.model)].context_tokens;
    const Step near_step = joined_at(load, clock, 0.0);
    const Step far_step = joined_at(load, clock, far);
    const auto per_token = static_cast<float>(1.0 / far);
    return {near_step.ms, (far_step.ms - near_step.ms) * per_token, near_step.j,
            (far_step.j - near_step.j) * per_token};
  }

 private:
  const ProfileView& profile() const { return class_.profile; }
  int profile_model(int model) const { return cluster_.profile_model(model, class_); }
  const Options& options() const { return cluster_.options; }

  // --- what the GPU will hold -------------------------------------------------------------------
  void collect() {
    for (const Resident& r : gpu_.summary.residents) {
      if (r.state != Residency::loading && r.state != Residency::ready) continue;
      const int sequences = r.running + r.waiting;
      float tbt_ms = kNever;
      if (sequences > 0) tbt_ms = r.tbt_ms < kNever ? r.tbt_ms : objective(r.model).tbt_ms;
      loads_.push_back({r.model, r.state == Residency::loading, sequences,
                        r.context_tokens + r.waiting_tokens, tbt_ms});
      waiting_ += r.waiting;
    }
    for (const Reservation& r : gpu_.reservations) {
      Load& load = load_of(r.model);
      load.sequences += 1;
      load.tokens += r.input_tokens;
      load.tbt_ms = std::min(load.tbt_ms, objective(r.model).tbt_ms);
      waiting_ += 1;
      reserved_tokens_ += r.input_tokens + r.output_tokens;
    }
  }

  Load& load_of(int model) {
    for (Load& load : loads_) {
      if (load.model == model) return load;
    }
    return loads_.emplace_back(Load{model, true, 0, 0.0, kNever});
  }

  const Slo& objective(int model) const {
    return cluster_.deployments[static_cast<std::size_t>(model)].slo;
  }

  // --- what they cost at the base clock ---------------------------------------------------------
  void measure() {
    clock_ = std::max(0, profile().clock_within(gpu_.summary.clock_target_mhz));
    top_ = class_.top_from(clock_);
    rounds_.assign(static_cast<std::size_t>(profile().clocks()), Step{0, 0});
    float decode_share = 0;
    for (Load& load : loads_) {
      busy_ = busy_ || load.sequences > 0;
      tbt_max_ms_ = std::min(tbt_max_ms_, load.tbt_ms * cluster_.usable());
      if (load.sequences == 0 || profile_model(load.model) < 0) continue;
      const Step step = step_at(load, 0, 0.0, clock_);
      load.round_ms = step.ms;
      load.round_j = step.j;
      decode_share += step.ms / load.tbt_ms;
    }
    stretch_ = options().interference
                   ? 1.0F / (1.0F - std::min(decode_share, 1.0F - 1.0F / kStretchMax))
                   : 1.0F;
    sum_rounds();
    wait_ms_ = std::max(gpu_.summary.free_in_ms, waiting_ms()) + reserved_ms();
  }

  // One decode step of a load with `more` sequences that bring `tokens` of context.
  Step step_at(const Load& load, int more, double tokens, int clock) const {
    const int batch = options().batch_aware ? load.sequences + more : 1;
    const double context = options().batch_aware ? (load.tokens + tokens) / batch : tokens;
    const Estimate e =
        profile().estimate(profile_model(load.model), Phase::decode, class_.full_rung, clock,
                           static_cast<float>(batch), static_cast<float>(context));
    const float power_w =
        options().marginal_energy ? e.power_w : e.power_w + profile().idle_w(clock);
    return {cluster_.upper_ms(e), e.latency_ms * power_w / 1000.0F};
  }

  // Step times and energies of all loads, summed, for every clock that the GPU may run at.
  void sum_rounds() {
    for (int clock = clock_; clock <= (busy_ ? top_ : clock_); ++clock) {
      Step& sum = rounds_[static_cast<std::size_t>(clock)];
      for (const Load& load : loads_) {
        if (load.sequences == 0 || profile_model(load.model) < 0) continue;
        const Step step =
            clock == clock_ ? Step{load.round_ms, load.round_j} : step_at(load, 0, 0.0, clock);
        sum.ms += step.ms;
        sum.j += step.j;
      }
    }
  }

  // The paper takes the agent's word for the queue and its table for everything else.
  void measure_paper() {
    clock_ = std::max(0, profile().clock_within(gpu_.summary.clock_mhz));
    top_ = clock_;
    rounds_.assign(static_cast<std::size_t>(profile().clocks()), Step{0, 0});
    wait_ms_ = gpu_.summary.free_in_ms + reserved_ms();
  }

  // --- the queue --------------------------------------------------------------------------------
  float prefill_ms(int model, double tokens) const {
    if (tokens <= 0 || profile_model(model) < 0) return 0;
    return cluster_.upper_ms(profile().estimate(profile_model(model), Phase::prefill,
                                                class_.full_rung, clock_,
                                                static_cast<float>(tokens), 0.0F));
  }
  float waiting_ms() const {
    float total = 0;
    for (const Resident& r : gpu_.summary.residents) {
      if (r.waiting == 0) continue;
      const auto prompts = static_cast<float>(r.waiting);
      total += prompts * prefill_ms(r.model, r.waiting_tokens / r.waiting);
    }
    return total * stretch_;
  }
  float reserved_ms() const {
    float total = 0;
    for (const Reservation& r : gpu_.reservations) total += prefill_ms(r.model, r.input_tokens);
    return total * stretch_;
  }

  // --- one more sequence -----------------------------------------------------------------------
  Step joined_at(const Load& load, int clock, double tokens) const {
    const Step own = step_at(load, 1, tokens, clock);
    if (!options().marginal_energy) {
      const float others_ms = options().interference ? others(load, clock).ms : 0.0F;
      return {others_ms + own.ms, own.j};
    }
    const Step rest = others(load, clock);
    const float round_ms = own.ms + (options().interference ? rest.ms : 0.0F);
    const int from = options().charge_raise ? clock_ : clock;
    const float without_j = rounds_[static_cast<std::size_t>(from)].j;
    const float idle_j = (profile().idle_w(clock) - profile().idle_w(from)) * round_ms / 1000.0F;
    return {round_ms, own.j + rest.j - without_j + idle_j};
  }

  // The round at `clock` without `load`.
  Step others(const Load& load, int clock) const {
    Step sum = rounds_[static_cast<std::size_t>(clock)];
    if (load.sequences > 0) {
      const Step own =
          clock == clock_ ? Step{load.round_ms, load.round_j} : step_at(load, 0, 0.0, clock);
      sum.ms -= own.ms;
      sum.j -= own.j;
    }
    return sum;
  }

  const Cluster& cluster_;
  const Gpu& gpu_;
  const GpuClass& class_;

  std::vector<Load> loads_;
  std::vector<Step> rounds_;  // by clock: one step of every load
  int clock_ = 0;
  int top_ = 0;
  bool busy_ = false;
  int waiting_ = 0;
  double reserved_tokens_ = 0;
  float stretch_ = 1.0F;
  float wait_ms_ = 0;
  float tbt_max_ms_ = kNever;
};

}  // namespace festina::placement
