#pragma once
#include <cstddef>

#include "core/placement/search.hpp"

// Placement by marginal joules (DESIGN 4.1, `festina`): the request goes where it raises the energy
// of the cluster least, among the GPUs where it and all residents meet their objectives.
namespace festina::placement {

class FestinaSearch : Search {
 public:
  using Search::Search;

  // Throws Refusal: infeasible or overloaded.
  Placement place() {
    FestinaQuotes(cluster_, request_, query_, book());
    if (!book().possible) refuse_impossible();
    Placement best = best_holder();
    if (book().guest_least_j < best.energy_j && any_guest()) {
      const Placement guest = best_guest();
      if (guest.energy_j < best.energy_j) best = guest;
    }
    return best.slot >= 0 ? best : least_late();
  }

 private:
  Placement best_holder() {
    float* cost = scratch_.holder_cost.data();
    score(holders_, book().holders, query_, cost);
    leave_out_holders();
    const std::size_t i = argmin(cost, holders_.size());
    Placement best;
    if (i < holders_.size()) best = answer(holders_, book().holders, i, Action::run);
    if (cluster_.options.raise_clock) consider_raises(best);
    return best;
  }

  // GPUs where the request would be late at the present clock but not at a higher one: the least
  // clock that meets the objectives, its price charged to all residents.
  void consider_raises(Placement& best) const {
    for (std::size_t i = 0; i < holders_.size(); ++i) {
      if (scratch_.holder_cost[i] < kNever || holders_.kv_free[i] < query_.kv_tokens) continue;
      if (holders_.wait_ms[i] + book().prefill_least_ms > query_.ttft_max_ms) continue;
      if (excluded(i)) continue;
      const GpuClass& of = class_of_quote(holders_.quote[i]);
      const int now = quote_offset(holders_.quote[i]) % cluster_.clocks_max;
      const int top = of.top_from(now);
      if (!on_time(raised(i, top), i)) continue;
      const int first = busy(i) ? now + 1 : std::min(now, of.clock_least);
      for (int clock = first; clock <= top; ++clock) {
        const Placement p = raised(i, clock);
        if (!on_time(p, i)) continue;
        if (p.energy_j < best.energy_j) best = p;
        break;
      }
    }
  }

  bool busy(std::size_t row) const {
    return quote_offset(holders_.quote[row]) < cluster_.clocks_max;
  }
  bool on_time(const Placement& p, std::size_t row) const {
    return p.ttft_ms <= query_.ttft_max_ms && p.tbt_ms <= query_.tbt_max_ms &&
           p.tbt_ms <= holders_.tbt_max_ms[row];
  }

  Placement raised(std::size_t row, int clock) const {
    const std::size_t of_row = class_index(holders_.quote[row]);
    const auto clocks = static_cast<std::size_t>(cluster_.clocks_max);
    const GpuClass& of = cluster_.classes[of_row];
    const Alone& alone = book().alone[of_row * clocks + static_cast<std::size_t>(clock)];
    Placement p;
    p.slot = holders_.slot[row];
    p.clock_mhz = of.profile.clock_mhz(clock);
    p.ttft_ms = holders_.wait_ms[row] + holders_.stretch[row] * alone.prefill_ms;
    if (!busy(row)) {
      const int now = quote_offset(holders_.quote[row]) - cluster_.clocks_max;
      p.tbt_ms = alone.step_ms;
      p.energy_j = FestinaQuotes::idle_gpu_j(cluster_, of, alone, now, clock);
      return p;
    }
    const auto& raises = cluster_.raises[static_cast<std::size_t>(request_.model)];
    const Raise& raise = raises[row * clocks + static_cast<std::size_t>(clock)];
    p.tbt_ms = raise.round_ms + query_.context_last * raise.round_ms_per_token;
    p.energy_j =
        alone.prefill_j +
        query_.output_tokens * (raise.step_j + query_.context_mean * raise.step_j_per_token);
    return p;
  }

  Placement best_guest() {
    score(guests_, book().guests, query_, scratch_.guest_cost.data());
    leave_out_guests();
    const std::size_t slot = argmin(scratch_.guest_cost.data(), guests_.size());
    if (slot >= guests_.size()) return {};
    return answer(guests_, book().guests, slot, guest_action(slot));
  }
};

}  // namespace festina::placement
