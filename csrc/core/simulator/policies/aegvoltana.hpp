#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/simulator/policies/aegaeon.hpp"

// Aegaeon with the clock control of VoltanaLLM (arXiv 2509.04827), as section 4.1 of the festina
// paper combines them.
//
// Follows: before every iteration each GPU takes the lowest clock of its list that meets the
// objective (EcoFreq): a prefill GPU from the time to the first token less what its prompt has
// waited, a decode GPU from the time between tokens over one token of every batch, by predicted
// latencies (EcoPred); the highest where requests wait for others, or batches for their weights.
// The lists begin at the clock of least energy per iteration, phase by phase: below it a lower
// clock costs more. A GPU with nothing to do runs at the first of its list.
//
// In its favour: prompts whose weights are still on their way do not raise the clock; a lower clock
// is asked for between iterations only, never while another switch is under way, since each takes
// the device's delay; the margins are tuned for attainment.
//
// Left out: EcoRoute, which spreads the decodes of one model over instances of different clocks;
// here nearly every model decodes on one GPU, where its batch is.
namespace festina::simulator {

struct AegVoltanaOptions {
  AegaeonOptions aegaeon;
  double prefill_margin = 0.3;  // share of the objective kept in reserve
  double decode_margin = 0.05;
  double clock_min_mhz = 0;  // lists begin here; 0: at the clock of least energy

  explicit AegVoltanaOptions(Settings& from) : aegaeon(from) {
    from.take("prefill_margin", prefill_margin);
    from.take("decode_margin", decode_margin);
    from.take("clock_min_mhz", clock_min_mhz);
  }
};

class AegVoltana final : public Aegaeon {
 public:
  AegVoltana(const AegVoltanaOptions& options, int gpus)
      : Aegaeon(options.aegaeon, gpus), options_(options) {}

  void start(Cluster& c) override {
    Aegaeon::start(c);
    prefill_floor_ = floor_of(c, Phase::prefill);
    decode_floor_ = floor_of(c, Phase::decode);
    for (int i = 0; i < c.gpus(); ++i) {
      Gpu& g = c.gpu(i);
      c.start_at_clock(g, !g.awake() ? 0 : decode().owns(g) ? decode_floor_ : prefill_floor_);
    }
  }

 protected:
  void govern_prefill(Cluster& c, Gpu& g) override {
    int next = kNone;
    int waiting = 0;
    prefill().waiting(g, [&](int r) {
      if (g.lane(c.request(r).model)->weights != Weights::ready) return;
      if (waiting++ == 0) next = r;
    });
    if (waiting == 0) return ask(c, g, prefill_floor_);
    if (waiting > 1 || !g.steps.empty()) return ask(c, g, c.top_clock());
    const Request& q = c.request(next);
    const double left_ms =
        q.first_due_ms() - c.now_ms() - options_.prefill_margin * static_cast<double>(q.ttft_ms);
    StepWork w;
    w.tokens = c.request(next).uncached();
    w.cached_mean = q.prompt_tokens() - w.tokens;
    int clock = prefill_floor_;
    while (clock < c.top_clock()) {
      const double late_ms = clock == g.clock ? 0 : c.device().clock_switch_ms;
      const Price p = c.belief().step(q.model, w, c.full_rung(), clock);
      if (late_ms + p.latency_ms <= left_ms) break;
      ++clock;
    }
    ask(c, g, clock);
  }
  void govern_decode(Cluster& c, Gpu& g) override {
    double tbt_ms = kNever;
    for (const auto& l : g.lanes) {
      tbt_ms = std::min(tbt_ms, l->tbt_ms);
      const bool waits = !l->running.empty() && l->weights != Weights::ready;
      if (waits) return ask(c, g, c.top_clock());
    }
    int clock = decode_floor_;
    while (clock < c.top_clock() &&
           decode().round_ms(c, g, clock) > tbt_ms * (1 - options_.decode_margin)) {
      ++clock;
    }
    ask(c, g, clock);
  }

 private:
  static void ask(Cluster& c, Gpu& g, int clock) {
    if (clock < g.clock_target && (g.switching() || !g.steps.empty())) return;
    c.set_clock(g, clock);
  }

  // The clock of least energy for the declared load's typical step of the phase.
  int floor_of(const Cluster& c, Phase phase) const {
    if (options_.clock_min_mhz > 0) {
      return std::max(0, c.table().clock_within(static_cast<int>(options_.clock_min_mhz)));
    }
    std::vector<double> energy(static_cast<std::size_t>(c.top_clock()) + 1, 0.0);
    for (int m = 0; m < c.models(); ++m) {
      const Hint& h = c.hint(m);
      StepWork w;
      if (phase == Phase::prefill) {
        w.tokens = std::max(1, static_cast<int>(h.input_tokens));
      } else {
        w.decodes = 1;
        w.context_mean = h.input_tokens + h.output_tokens / 2;
      }
      const double steps = h.requests_per_s * (phase == Phase::prefill ? 1 : h.output_tokens);
      for (int k = 0; k <= c.top_clock(); ++k) {
        const Price p = c.belief().step(m, w, c.full_rung(), k);
        energy[static_cast<std::size_t>(k)] +=
            steps * p.latency_ms * (p.power_w + static_cast<double>(c.table().idle_w(k)));
      }
    }
    return static_cast<int>(std::min_element(energy.begin(), energy.end()) - energy.begin());
  }

  AegVoltanaOptions options_;
  int prefill_floor_ = 0;
  int decode_floor_ = 0;
};

}  // namespace festina::simulator
