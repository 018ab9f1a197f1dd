#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/placement/cluster.hpp"

// Packing one GPU's summary and reservations into the rows that placement scans. Runs when a
// summary arrives or a reservation changes (10-50 times a second and GPU), so that placing reads no
// profile per GPU.
namespace festina::placement {

class Packer {
 public:
  Packer(Cluster& cluster, int slot)
      : cluster_(cluster),
        gpu_(cluster.gpus[static_cast<std::size_t>(slot)]),
        class_(cluster.class_of(gpu_)),
        slot_(slot) {}

  // Makes all rows of the GPU what its summary and reservations say.
  void pack() {
    collect();
    paper() ? measure_paper() : measure();
    drop_entries_of_absent_models();
    for (const Load& load : loads_) {
      if (profile_model(load.model) >= 0) pack_holder(load);
    }
    pack_guest();
  }

  // Takes the GPU out of all rows.
  void remove() {
    loads_.clear();
    drop_entries_of_absent_models();
    for (auto& open : cluster_.guests.open) open[static_cast<std::size_t>(slot_)] = 0;
  }

 private:
  struct Step {
    float ms;
    float j;
  };

  const ProfileView& profile() const { return class_.profile; }
  int profile_model(int model) const { return cluster_.profile_model(model, class_); }
  const Options& options() const { return cluster_.options; }
  bool paper() const { return options().policy == Policy::paper; }

  // --- what the GPU will hold -------------------------------------------------------------------
  void collect() {
    for (const Resident& r : gpu_.summary.residents) {
      if (r.state != Residency::loading && r.state != Residency::ready) continue;
      const int sequences = r.running + r.waiting;
      float tbt_ms = kNever;
      if (sequences > 0) tbt_ms = r.tbt_ms < kNever ? r.tbt_ms : objective(r.model).tbt_ms;
      loads_.push_back({r.model, false, r.state == Residency::loading, sequences,
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
    return loads_.emplace_back(Load{model, true, true, 0, 0.0, kNever});
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

  // --- rows -------------------------------------------------------------------------------------
  void drop_entries_of_absent_models() {
    for (std::size_t i = 0; i < gpu_.entries.size();) {
      const int model = gpu_.entries[i].model;
      const bool held = std::any_of(loads_.begin(), loads_.end(),
                                    [model](const Load& load) { return load.model == model; });
      if (held) {
        ++i;
      } else {
        drop(i);
      }
    }
  }

  void drop(std::size_t index) {
    const EntryRef gone = gpu_.entries[index];
    Rows& rows = cluster_.holders[static_cast<std::size_t>(gone.model)];
    auto& raises = cluster_.raises[static_cast<std::size_t>(gone.model)];
    const auto stride = static_cast<std::size_t>(cluster_.clocks_max);
    const std::size_t last = rows.size() - 1;
    Gpu& moved = cluster_.gpus[static_cast<std::size_t>(rows.slot[last])];
    for (EntryRef& e : moved.entries) {
      if (e.model == gone.model) e.row = gone.row;
    }
    std::copy_n(&raises[last * stride], stride, &raises[gone.row * stride]);
    raises.resize(last * stride);
    rows.remove(gone.row);
    gpu_.entries.erase(gpu_.entries.begin() + static_cast<std::ptrdiff_t>(index));
  }

  std::size_t row_of(int model) {
    if (const EntryRef* e = gpu_.entry(model)) return e->row;
    Rows& rows = cluster_.holders[static_cast<std::size_t>(model)];
    const std::size_t row = rows.size();
    rows.grow();
    rows.slot[row] = slot_;
    auto& raises = cluster_.raises[static_cast<std::size_t>(model)];
    raises.resize((row + 1) * static_cast<std::size_t>(cluster_.clocks_max));
    gpu_.entries.push_back({model, row});
    return row;
  }

  void pack_holder(const Load& load) {
    const std::size_t row = row_of(load.model);
    Rows& rows = cluster_.holders[static_cast<std::size_t>(load.model)];
    pack_common(rows, row);
    rows.wait_ms[row] += load.loading ? ready_in_ms(load.model) : 0.0F;
    if (load.pledged) pledge(rows, row, load.model);
    const layout::Model& m = profile().model(profile_model(load.model));
    rows.free_bytes[row] +=
        std::max(0.0F, rows.kv_free[row]) * static_cast<float>(m.kv_bytes_per_token);
    Raise* raise = &cluster_.raises[static_cast<std::size_t>(load.model)]
                                   [row * static_cast<std::size_t>(cluster_.clocks_max)];
    const bool raised = busy_ && options().raise_clock;
    for (int clock = clock_; clock <= (raised ? top_ : clock_); ++clock) {
      raise[clock] = busy_ && !paper() ? joined(load, clock) : Raise{0, 0, 0, 0};
    }
    const Raise& base = raise[clock_];
    rows.round_ms[row] = base.round_ms;
    rows.round_ms_per_token[row] = base.round_ms_per_token;
    rows.step_j[row] = base.step_j;
    rows.step_j_per_token[row] = base.step_j_per_token;
  }

  float ready_in_ms(int model) const {
    const layout::Model& m = profile().model(profile_model(model));
    return static_cast<float>(m.load_ms + (gpu_.summary.parked ? m.wake_ms : 0.0));
  }

  // Room for the KV cache of a model whose weights are not counted in the summary yet.
  void pledge(Rows& rows, std::size_t row, int model) const {
    const layout::Model& m = profile().model(profile_model(model));
    const double left = gpu_.summary.memory_free_bytes - static_cast<double>(m.weight_bytes);
    const double tokens = left / std::max(1.0, static_cast<double>(m.kv_bytes_per_token));
    rows.kv_total[row] = queue_full() ? -1.0F : static_cast<float>(tokens);
    rows.kv_free[row] = queue_full() ? -1.0F : static_cast<float>(tokens - reserved_tokens_);
  }

  bool queue_full() const { return waiting_ >= options().queue_max; }

  // The figures that all rows of this GPU share.
  void pack_common(Rows& rows, std::size_t row) const {
    const Summary& s = gpu_.summary;
    rows.quote[row] = quote();
    rows.wait_ms[row] = wait_ms_;
    rows.stretch[row] = stretch_;
    rows.tbt_max_ms[row] = tbt_max_ms_;
    rows.kv_total[row] = queue_full() ? -1.0F : static_cast<float>(s.kv_tokens_total);
    rows.kv_free[row] =
        queue_full() ? -1.0F : static_cast<float>(s.kv_tokens_free - reserved_tokens_);
    rows.sms_free[row] = static_cast<float>(s.sms_free);
    rows.free_bytes[row] = static_cast<float>(s.memory_free_bytes);
  }

  std::int32_t quote() const {
    const int base = gpu_.gpu_class * cluster_.quotes_per_class();
    if (options().policy == Policy::paper) {
      const int rung = profile().rung_within(gpu_.summary.sms_free);
      const int clock = std::max(0, profile().clock_within(gpu_.summary.clock_mhz));
      if (rung < 0) return base + cluster_.rungs_max * cluster_.clocks_max;
      return base + rung * cluster_.clocks_max + clock;
    }
    if (gpu_.parked()) return base + 2 * cluster_.clocks_max;
    return base + (busy_ ? 0 : cluster_.clocks_max) + clock_;
  }

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

  void pack_guest() {
    Guests& guests = cluster_.guests;
    const auto slot = static_cast<std::size_t>(slot_);
    pack_common(guests.rows, slot);
    guests.rows.slot[slot] = slot_;
    guests.rows.kv_free[slot] = guests.rows.kv_total[slot] = queue_full() ? -1.0F : kNever;
    guests.rows.round_ms[slot] =
        options().interference ? rounds_[static_cast<std::size_t>(clock_)].ms : 0.0F;
    double claimed = 0;
    for (const Load& load : loads_) {
      if (load.pledged && profile_model(load.model) >= 0) {
        const layout::Model& m = profile().model(profile_model(load.model));
        claimed += static_cast<double>(m.weight_bytes) +
                   reserved_tokens_ * static_cast<double>(m.kv_bytes_per_token);
      }
    }
    const double left = gpu_.summary.memory_free_bytes - claimed;
    guests.free_bytes_left[slot] = queue_full() ? -1.0F : static_cast<float>(left);
    for (auto& open : guests.open) open[slot] = 0;
    for (const int model : gpu_.may_host) {
      const bool open =
          gpu_.entry(model) == nullptr && profile_model(model) >= 0 && !leaving(model);
      guests.open[static_cast<std::size_t>(model)][slot] = open ? 1 : 0;
    }
  }

  bool leaving(int model) const {
    for (const Resident& r : gpu_.summary.residents) {
      if (r.model == model && r.state == Residency::unloading) return true;
    }
    return false;
  }

  Cluster& cluster_;
  Gpu& gpu_;
  const GpuClass& class_;
  int slot_;

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
