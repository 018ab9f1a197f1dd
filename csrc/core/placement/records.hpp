#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/placement/cluster.hpp"
#include "core/placement/residents.hpp"

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
    const Residents residents(cluster_, gpu_);
    drop_entries_of_absent_models(residents);
    for (const Load& load : residents.loads()) {
      if (profile_model(load.model) >= 0) pack_holder(residents, load);
    }
    pack_guest(residents);
  }

  // Takes the GPU out of all rows.
  void remove() {
    while (!gpu_.entries.empty()) drop(gpu_.entries.size() - 1);
    for (auto& open : cluster_.guests.open) open[static_cast<std::size_t>(slot_)] = 0;
  }

 private:
  const ProfileView& profile() const { return class_.profile; }
  int profile_model(int model) const { return cluster_.profile_model(model, class_); }
  const Options& options() const { return cluster_.options; }
  bool paper() const { return options().policy == Policy::paper; }

  // --- rows -------------------------------------------------------------------------------------
  void drop_entries_of_absent_models(const Residents& residents) {
    for (std::size_t i = gpu_.entries.size(); i-- > 0;) {
      if (!residents.holds(gpu_.entries[i].model)) drop(i);
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

  void pack_holder(const Residents& residents, const Load& load) {
    const std::size_t row = row_of(load.model);
    Rows& rows = cluster_.holders[static_cast<std::size_t>(load.model)];
    pack_common(residents, rows, row);
    rows.wait_ms[row] += load.loading ? ready_in_ms(load.model) : 0.0F;
    if (load.loading) pledge(residents, rows, row, load.model);
    const layout::Model& m = profile().model(profile_model(load.model));
    rows.free_bytes[row] +=
        std::max(0.0F, rows.kv_free[row]) * static_cast<float>(m.kv_bytes_per_token);
    Raise* raise = &cluster_.raises[static_cast<std::size_t>(load.model)]
                                   [row * static_cast<std::size_t>(cluster_.clocks_max)];
    const int now = residents.clock();
    const bool busy = residents.busy() && !paper();
    for (int clock = now; clock <= (busy && options().raise_clock ? residents.clock_top() : now);
         ++clock) {
      raise[clock] = busy ? residents.joined(load, clock) : Raise{0, 0, 0, 0};
    }
    const Raise& base = raise[now];
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
  void pledge(const Residents& residents, Rows& rows, std::size_t row, int model) const {
    const layout::Model& m = profile().model(profile_model(model));
    const double left = gpu_.summary.memory_free_bytes - static_cast<double>(m.weight_bytes);
    const double tokens = left / std::max(1.0, static_cast<double>(m.kv_bytes_per_token));
    pack_room(residents, rows, row, tokens);
    rows.kv_total[row] = residents.queue_full() ? -1.0F : static_cast<float>(tokens);
  }

  // Tokens for a new request; a full queue has room for none.
  void pack_room(const Residents& residents, Rows& rows, std::size_t row, double tokens) const {
    const double free = tokens - residents.reserved_tokens();
    rows.kv_free[row] = residents.queue_full() ? -1.0F : static_cast<float>(free);
  }

  // The figures that all rows of this GPU share.
  void pack_common(const Residents& residents, Rows& rows, std::size_t row) const {
    const Summary& s = gpu_.summary;
    rows.quote[row] = quote(residents);
    rows.wait_ms[row] = residents.wait_ms();
    rows.stretch[row] = residents.stretch();
    rows.tbt_max_ms[row] = residents.tbt_max_ms();
    rows.kv_total[row] = residents.queue_full() ? -1.0F : static_cast<float>(s.kv_tokens_total);
    pack_room(residents, rows, row, s.kv_tokens_free);
    rows.sms_free[row] = static_cast<float>(s.sms_free);
    rows.free_bytes[row] = static_cast<float>(s.memory_free_bytes);
  }

  std::int32_t quote(const Residents& residents) const {
    const int base = gpu_.gpu_class * cluster_.quotes_per_class();
    if (paper()) {
      const int rung = std::min(profile().rung_within(gpu_.summary.sms_free), class_.full_rung);
      if (rung < 0) return base + cluster_.rungs_max * cluster_.clocks_max;
      return base + rung * cluster_.clocks_max + residents.clock();
    }
    if (gpu_.parked()) return base + 2 * cluster_.clocks_max;
    return base + (residents.busy() ? 0 : cluster_.clocks_max) + residents.clock();
  }

  void pack_guest(const Residents& residents) {
    Guests& guests = cluster_.guests;
    const auto slot = static_cast<std::size_t>(slot_);
    pack_common(residents, guests.rows, slot);
    guests.rows.slot[slot] = slot_;
    guests.rows.kv_free[slot] = residents.queue_full() ? -1.0F : kNever;
    guests.rows.kv_total[slot] = guests.rows.kv_free[slot];
    guests.rows.round_ms[slot] = options().interference ? residents.round_ms() : 0.0F;
    const double left = gpu_.summary.memory_free_bytes - claimed_bytes(residents);
    guests.free_bytes_left[slot] = residents.queue_full() ? -1.0F : static_cast<float>(left);
    for (auto& open : guests.open) open[slot] = 0;
    for (const int model : gpu_.may_host) {
      const bool open = !residents.holds(model) && !leaving(model);
      guests.open[static_cast<std::size_t>(model)][slot] = open ? 1 : 0;
    }
  }

  // Memory that models which are not there yet will take, with what is reserved of their caches.
  double claimed_bytes(const Residents& residents) const {
    double claimed = 0;
    for (const Load& load : residents.loads()) {
      if (!load.loading || profile_model(load.model) < 0) continue;
      const layout::Model& m = profile().model(profile_model(load.model));
      claimed += static_cast<double>(m.weight_bytes) +
                 residents.reserved_tokens() * static_cast<double>(m.kv_bytes_per_token);
    }
    return claimed;
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
};

}  // namespace festina::placement
