#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/make_way.hpp"
#include "core/simulator/policies/paper_consolidation.hpp"
#include "core/simulator/policies/paper_local.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/policies/summaries.hpp"
#include "core/simulator/settings.hpp"

// Festina as published (arXiv 2606.30391), on the simulated cluster:
//   global placement  section 3.3       placement::ClusterView, policy `paper`
//   local scheduling  section 3.4       paper_local.hpp with operating_point::Solver, policy
//   `paper`
// Its ladder of ablations begins with placement at the default clock and, on each GPU, first come
// first served on equal shares of the SMs.
// Where the paper is silent: a change of the clock takes the device's time, meanwhile tasks get the
// SMs that they need at the clock the GPU has (it mentions no delay); the tasks of one model share
// one step, because its engine reads the weights once for all of them; prompts run in units of an
// epoch, so that the next decision is never far (its epoch has no length); keep-alives last two
// minutes. Deadlines keep 10 %, which costs next to no energy and serves more requests in time.
// Left out: its predictor of output lengths (2 % of errors above 5 %); like all policies here it
// goes by the mean of what finished, padded by the paper's 5 %, and only memory depends on it. Its
// floor of 795 MHz and top of 1635 MHz: it may use all clocks of the device.
namespace festina::simulator {

struct FestinaPaperOptions {
  PaperLocalOptions local;
  bool consolidation = true;
  PaperConsolidationOptions consolidated;
  double kv_headroom = 2;    // KV cache planned for at the start, over the mean declared load
  double pace_tbt_ms = 100;  // loads are spread at the start for this gap between tokens
  double summary_ms = 20;    // agents report at most this often

  explicit FestinaPaperOptions(Settings& from) {
    from.take("operating_point", local.operating_point);
    from.take("local_priority", local.tasks.by_score);
    from.take("consolidation", consolidation);
    double keep_alive_s = consolidated.keep_alive_ms / 1000;
    from.take("keep_alive_s", keep_alive_s);
    consolidated.keep_alive_ms = keep_alive_s * 1000;
    from.take("margin", local.tasks.margin);
    from.take("epoch_ms", local.tasks.epoch_ms, 1);
    double chunk_tokens = local.tasks.chunk_tokens;
    from.take("chunk_tokens", chunk_tokens, 1);
    local.tasks.chunk_tokens = static_cast<int>(chunk_tokens);
    from.take("kv_headroom", kv_headroom);
  }
};

class FestinaPaper : public Policy {
 public:
  explicit FestinaPaper(const FestinaPaperOptions& options) : options_(options) {}

  void start(Cluster& c) override {
    placement::Options o;
    o.policy = placement::Policy::paper;
    o.margin = static_cast<float>(options_.local.tasks.margin);
    summaries_.emplace(c, o, options_.summary_ms, Sharing::side_by_side);
    local_ = std::make_unique<PaperLocal>(c, options_.local);
    if (options_.consolidation) consolidation_.emplace(c, options_.consolidated);
    preload_spread(c, options_.kv_headroom, options_.pace_tbt_ms);
  }

  void arrived(Cluster& c, int r) override {
    if (consolidation_) consolidation_->arrived(c, r);
    const int output = expected_output(c, r);
    const placement::Placement p = place(c, r, output);
    Gpu& g = c.gpu(p.slot);
    summaries_->reserve(c, p.slot, r, output);
    if (p.action == placement::Action::wake) c.wake(g);
    raise_clock(c, g, p.clock_mhz);
    c.enqueue(g, r);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (consolidation_) consolidation_->moves().advance(c);
    load_wanted(c, g);
    make_room_for_caches(c, g);
    local_->dispatch(c, g);
  }

  void prefilled(Cluster& c, int r) override {
    Gpu& here = c.gpu(c.request(r).gpu);
    const int to = consolidation_
                       ? consolidation_->moves().onward(c, c.request(r).model, here.index)
                       : here.index;
    if (to == here.index || !PaperMoves::admits(c, c.gpu(to), r)) return c.join(here, r);
    c.hand_over(r, c.gpu(to));
  }

  double tick_ms() const override { return options_.consolidation ? kTimerMs : 0; }
  void tick(Cluster& c) override { consolidation_->tick(c); }

 private:
  static constexpr double kTimerMs = 1000;  // of keep-alives
  static constexpr double kPadding = 1.05;  // section 3.2.2

  static int expected_output(const Cluster& c, int r) {
    return static_cast<int>(std::ceil(kPadding * c.expected_output(c.request(r).model)));
  }

  placement::Placement place(Cluster& c, int r, int output) {
    std::span<const int> closed;
    if (consolidation_) closed = consolidation_->moves().closed(c, c.request(r).model);
    try {
      return summaries_->place(c, r, output, closed);
    } catch (const placement::Refusal&) {
      placement::Placement p;  // the paper refuses nobody: where it is held, or could be
      p.slot = holder(c, c.request(r).model);
      if (p.slot == kNone) p.slot = cheapest_to_load(c, bytes_to_serve(c, r));
      if (p.slot == kNone) p.slot = least_busy(c);
      if (c.gpu(p.slot).power == Power::parked) p.action = placement::Action::wake;
      return p;
    }
  }

  // Placement counted on this clock.
  void raise_clock(Cluster& c, Gpu& g, int clock_mhz) const {
    if (!options_.local.operating_point || g.switching()) return;
    const int clock = c.table().clock_within(clock_mhz);
    if (clock > g.clock) c.set_clock(g, clock);
  }

  FestinaPaperOptions options_;
  std::optional<Summaries> summaries_;
  std::unique_ptr<PaperLocal> local_;
  std::optional<PaperConsolidation> consolidation_;
};

}  // namespace festina::simulator
