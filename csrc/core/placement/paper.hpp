#pragma once
#include <algorithm>
#include <cstddef>

#include "core/placement/search.hpp"

// Placement as the paper states it (section 3.3): feasible at the present clock with the SMs that
// are free, least Power x Latency, ties within 2 %; then the earliest GPU that is feasible at the
// top clock; then a new GPU at the model's preferred clock.
namespace festina::placement {

class PaperSearch : Search {
 public:
  using Search::Search;

  // Throws Refusal: infeasible or overloaded.
  Placement place() {
    quote_paper(cluster_, request_, query_, book());
    if (!book().possible) refuse_impossible();
    Placement p = least_energy();
    if (p.slot < 0) p = earliest_at_top_clock();
    if (p.slot < 0) p = activate();
    return p.slot >= 0 ? p : least_late();
  }

 private:
  // Phases one and two.
  Placement least_energy() {
    float* cost = scratch_.holder_cost.data();
    score(holders_, book().holders, query_, cost);
    leave_out_holders();
    const std::size_t least = argmin(cost, holders_.size());
    if (least == holders_.size()) return {};
    const float tie_j = cost[least] * (1.0F + cluster_.options.tie_share);
    std::size_t best = least;
    for (std::size_t i = 0; i < holders_.size(); ++i) {
      if (cost[i] <= tie_j && roomier(i, best)) best = i;
    }
    return answer(holders_, book().holders, best, Action::run);
  }

  // More free memory; then more free SMs; then the lower slot.
  bool roomier(std::size_t a, std::size_t b) const {
    if (holders_.free_bytes[a] != holders_.free_bytes[b]) {
      return holders_.free_bytes[a] > holders_.free_bytes[b];
    }
    if (holders_.sms_free[a] != holders_.sms_free[b]) {
      return holders_.sms_free[a] > holders_.sms_free[b];
    }
    return holders_.slot[a] < holders_.slot[b];
  }

  // Phase three: in order of the earliest start, the first GPU that is feasible at the top clock.
  Placement earliest_at_top_clock() const {
    Placement best;
    float best_wait_ms = kNever;
    for (std::size_t i = 0; i < holders_.size(); ++i) {
      const float wait_ms = holders_.wait_ms[i];
      const bool earlier =
          wait_ms < best_wait_ms || (wait_ms == best_wait_ms && holders_.slot[i] < best.slot);
      if (!earlier || excluded(i) || holders_.kv_free[i] < query_.kv_tokens) continue;
      const Placement p = at_top_clock(i);
      if (p.ttft_ms > query_.ttft_max_ms || p.tbt_ms > query_.tbt_max_ms) continue;
      best = p;
      best_wait_ms = wait_ms;
    }
    return best;
  }

  Placement at_top_clock(std::size_t row) const {
    const std::int32_t quote = holders_.quote[row];
    const GpuClass& of = class_of_quote(quote);
    const int offset = quote_offset(quote);
    const int rung = offset / cluster_.clocks_max;
    if (rung == cluster_.rungs_max) return {};  // too few SMs free for the smallest rung
    const int top = of.top_from(offset % cluster_.clocks_max);
    const auto at = static_cast<std::size_t>(quote - offset + rung * cluster_.clocks_max + top);
    Placement p;
    p.slot = holders_.slot[row];
    p.clock_mhz = of.profile.clock_mhz(top);
    p.ttft_ms = holders_.wait_ms[row] + book().holders.prefill_ms[at];
    p.tbt_ms = book().holders.round_ms[at];
    p.energy_j = book().holders.energy_j[at];
    return p;
  }

  // Phase three, last resort: a new GPU, awake ones first, then the one with the most free memory.
  Placement activate() const {
    std::fill(scratch_.guest_cost.begin(), scratch_.guest_cost.end(), 0.0F);
    leave_out_guests();
    std::size_t best = guests_.size();
    for (std::size_t slot = 0; slot < guests_.size(); ++slot) {
      if (scratch_.guest_cost[slot] < kNever && (best == guests_.size() || fitter(slot, best))) {
        best = slot;
      }
    }
    return best < guests_.size() ? activated(best) : Placement{};
  }

  bool fitter(std::size_t a, std::size_t b) const {
    const bool parked_a = cluster_.gpus[a].parked();
    const bool parked_b = cluster_.gpus[b].parked();
    if (parked_a != parked_b) return parked_b;
    return cluster_.guests.free_bytes_left[a] > cluster_.guests.free_bytes_left[b];
  }

  // At the clock of least energy that meets the objectives on the whole GPU.
  Placement activated(std::size_t slot) const {
    const Gpu& gpu = cluster_.gpus[slot];
    const GpuClass& of = cluster_.class_of(gpu);
    const layout::Model& model = of.profile.model(cluster_.profile_model(request_.model, of));
    const double start_ms = model.load_ms + (gpu.parked() ? model.wake_ms : 0.0);
    const AloneTable table(cluster_, of, request_, query_);
    Placement best;
    for (int clock = of.clock_least; clock <= of.clock_top; ++clock) {
      const Alone a = table.at(of.full_rung, clock);
      const bool meets = a.prefill_ms <= query_.ttft_max_ms && a.step_ms <= query_.tbt_max_ms;
      const float energy_j = a.prefill_j + a.decode_j;
      if (clock < of.clock_top && (!meets || energy_j >= best.energy_j)) continue;
      if (best.slot >= 0 && (!meets || energy_j >= best.energy_j)) continue;
      best.slot = static_cast<int>(slot);
      best.action = guest_action(slot);
      best.clock_mhz = of.profile.clock_mhz(clock);
      best.ttft_ms = guests_.wait_ms[slot] + static_cast<float>(start_ms) + a.prefill_ms;
      best.tbt_ms = a.step_ms;
      best.energy_j = energy_j;
    }
    best.on_time = best.ttft_ms <= query_.ttft_max_ms && best.tbt_ms <= query_.tbt_max_ms;
    return best;
  }
};

}  // namespace festina::placement
