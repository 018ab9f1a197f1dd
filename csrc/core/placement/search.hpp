#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "core/placement/cluster.hpp"
#include "core/placement/quotes.hpp"
#include "core/placement/rows.hpp"

// What both forms of placement share: which GPUs are left out, and the answer when all are late.
namespace festina::placement {

// Memory of the search, kept between requests so that placing allocates nothing.
struct Scratch {
  QuoteBook book;
  std::vector<float> holder_cost;
  std::vector<float> guest_cost;
  std::vector<std::size_t> excluded_rows;
};

class Search {
 public:
  Search(const Cluster& cluster, const Request& request, std::span<const int> exclude,
         Scratch& scratch)
      : cluster_(cluster),
        request_(request),
        query_(query_of(cluster, request)),
        exclude_(exclude),
        scratch_(scratch),
        holders_(cluster.holders[static_cast<std::size_t>(request.model)]),
        guests_(cluster.guests.rows),
        open_(cluster.guests.open[static_cast<std::size_t>(request.model)]) {
    scratch.holder_cost.resize(holders_.size());
    scratch.guest_cost.resize(guests_.size());
    scratch.excluded_rows.clear();
    for (const int slot : exclude) {
      const EntryRef* e = cluster.gpus[static_cast<std::size_t>(slot)].entry(request.model);
      if (e != nullptr) scratch.excluded_rows.push_back(e->row);
    }
  }

 protected:
  std::size_t class_index(std::int32_t quote) const {
    return static_cast<std::size_t>(quote / cluster_.quotes_per_class());
  }
  const GpuClass& class_of_quote(std::int32_t quote) const {
    return cluster_.classes[class_index(quote)];
  }
  int quote_offset(std::int32_t quote) const { return quote % cluster_.quotes_per_class(); }
  QuoteBook& book() const { return scratch_.book; }

  bool excluded(std::size_t row) const {
    const auto& rows = scratch_.excluded_rows;
    return std::find(rows.begin(), rows.end(), row) != rows.end();
  }

  void leave_out_holders() const {
    for (const std::size_t row : scratch_.excluded_rows) scratch_.holder_cost[row] = kNever;
  }

  // GPUs that hold the model already, may not host it, or lack the memory for it.
  void leave_out_guests() const {
    if (!any_guest()) {
      std::fill(scratch_.guest_cost.begin(), scratch_.guest_cost.end(), kNever);
      return;
    }
    for (std::size_t slot = 0; slot < guests_.size(); ++slot) {
      if (!open_[slot]) scratch_.guest_cost[slot] = kNever;
    }
    for (std::size_t slot = 0; slot < guests_.size(); ++slot) {
      if (scratch_.guest_cost[slot] < kNever && !fits_as_guest(slot)) {
        scratch_.guest_cost[slot] = kNever;
      }
    }
    for (const int slot : exclude_) scratch_.guest_cost[static_cast<std::size_t>(slot)] = kNever;
  }

  // Some GPU may host the model and does not hold it.
  bool any_guest() const {
    return !open_.empty() && std::memchr(open_.data(), 1, open_.size()) != nullptr;
  }

  bool fits_as_guest(std::size_t slot) const {
    const GpuClass& of = cluster_.class_of(cluster_.gpus[slot]);
    const layout::Model& m = of.profile.model(cluster_.profile_model(request_.model, of));
    const double need =
        static_cast<double>(m.weight_bytes) +
        static_cast<double>(query_.kv_tokens) * static_cast<double>(m.kv_bytes_per_token);
    return need <= static_cast<double>(cluster_.guests.free_bytes_left[slot]);
  }

  Action guest_action(std::size_t slot) const {
    return cluster_.gpus[slot].parked() ? Action::wake : Action::load;
  }

  // The answer for row `i`, by its quote.
  Placement answer(const Rows& rows, const Quotes& quotes, std::size_t i, Action action) const {
    const std::int32_t quote = rows.quote[i];
    const auto at = static_cast<std::size_t>(quote);
    const float step_j = rows.step_j[i] + query_.context_mean * rows.step_j_per_token[i];
    Placement p;
    p.slot = rows.slot[i];
    p.action = action;
    p.clock_mhz = class_of_quote(quote).profile.clock_mhz(quotes.clock[at]);
    p.ttft_ms = rows.wait_ms[i] + rows.stretch[i] * quotes.prefill_ms[at];
    p.tbt_ms =
        rows.round_ms[i] + query_.context_last * rows.round_ms_per_token[i] + quotes.round_ms[at];
    p.energy_j = quotes.energy_j[at] + query_.output_tokens * step_j;
    return p;
  }

  // Nothing meets the objectives now, but an idle GPU would: the request is better off in the queue
  // of the GPU where it will be least late than refused, as long as that queue has room.
  Placement least_late() const {
    lateness(holders_, book().holders, query_, scratch_.holder_cost.data());
    leave_out_holders();
    if (any_guest()) lateness(guests_, book().guests, query_, scratch_.guest_cost.data());
    leave_out_guests();
    const std::size_t h = argmin(scratch_.holder_cost.data(), holders_.size());
    const std::size_t g = argmin(scratch_.guest_cost.data(), guests_.size());
    const float late_h = h < holders_.size() ? scratch_.holder_cost[h] : kNever;
    const float late_g = g < guests_.size() ? scratch_.guest_cost[g] : kNever;
    if (late_h == kNever && late_g == kNever) refuse();
    Placement p = late_h <= late_g ? answer(holders_, book().holders, h, Action::run)
                                   : answer(guests_, book().guests, g, guest_action(g));
    p.on_time = false;
    return p;
  }

  // No class of GPUs meets the objectives. Where there is no GPU at all yet, one may come.
  [[noreturn]] void refuse_impossible() const {
    for (const GpuClass& of : cluster_.classes) {
      if (of.gpus > 0 && cluster_.profile_model(request_.model, of) >= 0) {
        throw Refusal(Reason::infeasible,
                      "no GPU of this cluster could meet the objectives, even when idle", "slo",
                      "objectives that an idle GPU can meet");
      }
    }
    refuse();
  }

  [[noreturn]] void refuse() const {
    float wait_ms = kNever;
    for (std::size_t i = 0; i < holders_.size(); ++i) {
      if (!excluded(i)) wait_ms = std::min(wait_ms, holders_.wait_ms[i]);
    }
    const int retry_after_ms = wait_ms < 1e6F ? std::max(cluster_.options.retry_after_ms,
                                                         static_cast<int>(std::ceil(wait_ms)))
                                              : cluster_.options.retry_after_ms;
    throw Refusal(Reason::overloaded, "no GPU has room for the request now", "", "",
                  retry_after_ms);
  }

  const Cluster& cluster_;
  const Request& request_;
  const Query query_;
  std::span<const int> exclude_;
  Scratch& scratch_;
  const Rows& holders_;
  const Rows& guests_;
  const std::vector<std::uint8_t>& open_;
};

}  // namespace festina::placement
