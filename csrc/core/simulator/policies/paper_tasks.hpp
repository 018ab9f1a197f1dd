#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core/operating_point/admission.hpp"
#include "core/operating_point/types.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/summaries.hpp"

// What the local scheduler of the paper chooses from: one task per resident model, the next step
// that its engine could run (arXiv 2606.30391, section 3.4).
namespace festina::simulator {

struct PaperTaskOptions {
  bool by_score = true;  // order prompts by urgency; else by arrival
  double margin = 0.1;   // share of each deadline kept in reserve
  double epoch_ms = 40;  // prompts run in units of about this long, so that others may overtake
  int chunk_tokens = 2048;
  int chunk_min_tokens = 64;
};

// A step that could start now.
struct PaperTask {
  Lane* lane = nullptr;
  int decodes = 0;
  std::vector<Chunk> chunks;
  double deadline_ms = kNever;   // when it must have ended
  double age_ms = 0;             // of its oldest prompt, in proportion to its share of the prompts
  double runnable_ms = kNever;   // since when it could have run
  double memory_bytes = 0;       // that its new prompts are expected to fill
  operating_point::Task task{};  // the same, as the solver takes it
};

class PaperTasks {
 public:
  explicit PaperTasks(const PaperTaskOptions& options) : options_(options) {}

  // The next step of a lane that is ready and not busy: its decodes, with as much of its prompts as
  // their deadlines ask for. Nothing to do: no decodes and no chunks.
  PaperTask next(const Cluster& c, const Gpu& g, Lane& lane, bool with_prompts) {
    PaperTask t = decodes_of(c, lane);
    if (with_prompts && !lane.waiting.empty()) add_prompts(c, g, t);
    if (t.decodes > 0 || !t.chunks.empty()) describe(c, g, t);
    return t;
  }

  // A step under way, as the work and the time that are left of it.
  operating_point::Task under_way(const Cluster& c, const Step& s, double deadline_ms) const {
    const double passed_ms = c.now_ms() - s.start_ms;
    const double left = std::clamp(1 - passed_ms / s.predicted_ms, 0.05, 1.0);
    PaperTask t;
    t.lane = s.lane;
    t.decodes = s.decodes;
    t.chunks = s.chunks;
    const double slack_ms = deadline_ms - c.now_ms();
    t.deadline_ms = slack_ms > 0 ? c.now_ms() + slack_ms / left : deadline_ms;
    return task_of(c, t);
  }

 private:
  static constexpr std::size_t kAhead = 16;  // waiting prompts that are compared

  struct Prompt {
    int request;
    int tokens;
    double slack_ms;  // margin taken off
    double age_ms;
    std::uint32_t urgency;
  };

  PaperTask decodes_of(const Cluster& c, Lane& lane) const {
    PaperTask t;
    t.lane = &lane;
    t.decodes = std::min(static_cast<int>(lane.running.size()), c.setup().batch_max);
    if (t.decodes == 0) return t;
    t.runnable_ms = lane.due_ms - lane.tbt_ms;
    t.deadline_ms = lane.due_ms - options_.margin * lane.tbt_ms;
    return t;
  }

  // --- prompts ----------------------------------------------------------------------------------
  void add_prompts(const Cluster& c, const Gpu& g, PaperTask& t) {
    collect(c, g, *t.lane);
    if (prompts_.empty()) return;
    int total = 0;
    double age_share = 0;  // the oldest prompt's age over its slack and age
    double rate = 0;       // tokens per ms with which all of them are in time
    for (const Prompt& p : prompts_) {
      total += p.tokens;
      rate = std::max(rate, total / std::max(p.slack_ms, kLate));
      age_share = std::max(age_share, p.age_ms / std::max(p.slack_ms, kLate));
    }
    const int tokens = unit(c, t, std::min(total, options_.chunk_tokens), rate);
    const double unit_ms = tokens / rate;
    take(c, t, tokens);
    t.deadline_ms = std::min(t.deadline_ms, c.now_ms() + unit_ms);
    t.age_ms = unit_ms * age_share;
  }

  // Those that memory has room for, the most urgent first.
  void collect(const Cluster& c, const Gpu& g, const Lane& lane) {
    prompts_.clear();
    double room = c.memory_free_bytes(g);
    for (std::size_t k = 0; k < std::min(lane.waiting.size(), kAhead); ++k) {
      const int r = lane.waiting[k];
      const double need = c.admitted(r) ? 0 : c.expected_kv_bytes(r);
      const bool first = prompts_.empty() && c.has_room(g, r);
      if (!first && need > room) continue;
      room -= need;
      prompts_.push_back(prompt(c, g, lane, r));
    }
    if (!options_.by_score) return;
    std::stable_sort(prompts_.begin(), prompts_.end(),
                     [](const Prompt& a, const Prompt& b) { return a.urgency > b.urgency; });
  }

  Prompt prompt(const Cluster& c, const Gpu& g, const Lane& lane, int r) const {
    const Request& q = c.request(r);
    const double since_ms = q.generated == 0 ? q.sent_ms : q.last_ms;
    const double allowed_ms = static_cast<double>(q.generated == 0 ? q.ttft_ms : q.tbt_ms);
    Prompt p{r, q.uncached(), since_ms + allowed_ms * (1 - options_.margin) - c.now_ms(),
             c.now_ms() - since_ms, 0};
    if (!options_.by_score) return p;
    StepWork w;
    w.tokens = p.tokens;
    const double latency_ms = c.belief().step(lane.model, w, c.full_rung(), g.clock).latency_ms;
    p.urgency =
        operating_point::urgency(static_cast<float>(latency_ms), static_cast<float>(p.slack_ms), 1,
                                 static_cast<float>(p.age_ms));
    return p;
  }

  // How many tokens the step takes: as many as the deadlines ask for within an epoch, and with
  // decodes no more than lets them be in time on the whole GPU.
  int unit(const Cluster& c, const PaperTask& t, int most, double rate) const {
    const double slack_ms =
        std::clamp(t.deadline_ms - c.now_ms(), kLate, options_.epoch_ms * (1 - options_.margin));
    const double asked = std::ceil(rate * slack_ms);
    if (asked < most) most = std::max(static_cast<int>(asked), std::min(most, least()));
    if (t.decodes == 0) return most;
    StepWork w = c.work(*t.lane, t.decodes, {});
    const auto fits = [&](int tokens) {
      w.tokens = tokens;
      return c.belief().step(t.lane->model, w, c.full_rung(), c.top_clock()).latency_ms <= slack_ms;
    };
    while (most > least() && !fits(most)) most = std::max(least(), most * 3 / 4);
    return most;
  }
  int least() const { return options_.chunk_min_tokens; }

  void take(const Cluster& c, PaperTask& t, int tokens) const {
    for (const Prompt& p : prompts_) {
      if (tokens == 0) return;
      const int taken = std::min(tokens, p.tokens);
      tokens -= taken;
      t.chunks.push_back({p.request, taken});
      const Request& q = c.request(p.request);
      t.runnable_ms = std::min(t.runnable_ms, q.generated == 0 ? q.sent_ms : q.last_ms);
      if (!c.admitted(p.request)) t.memory_bytes += c.expected_kv_bytes(p.request);
    }
  }

  // --- as the solver takes it -------------------------------------------------------------------
  static void describe(const Cluster& c, const Gpu& g, PaperTask& t) {
    t.task = task_of(c, t);
    // Nobody else is in the way of a prompt that is larger than what is free.
    const bool alone = g.reserved_bytes <= 0;
    t.task.memory_bytes =
        alone ? std::min(t.memory_bytes, std::max(0.0, c.memory_free_bytes(g))) : t.memory_bytes;
  }

  // The profile knows prompts or decodes; what a mixed step takes longer, and what was learnt of
  // the model, shortens the deadline instead.
  static operating_point::Task task_of(const Cluster& c, const PaperTask& t) {
    const StepWork w = c.work(*t.lane, t.decodes, t.chunks);
    double slower = c.belief().factor(t.lane->model, w.phase());
    if (t.decodes > 0 && w.tokens > 0) slower *= mixed_over_plain(c, t.lane->model, w);
    const double slack_ms = t.deadline_ms - c.now_ms();
    const bool prefill = w.tokens > 0;
    return {c.belief().profile(t.lane->model),
            static_cast<std::int32_t>(w.phase()),
            static_cast<float>(prefill ? w.tokens + w.decodes : w.decodes),
            static_cast<float>(prefill ? w.cached_mean : w.context_mean),
            static_cast<float>(slack_ms > 0 ? slack_ms / slower : slack_ms),
            static_cast<float>(std::max(0.0, t.age_ms / slower)),
            0};
  }
  static double mixed_over_plain(const Cluster& c, int model, const StepWork& mixed) {
    StepWork plain;
    plain.tokens = mixed.tokens + mixed.decodes;
    plain.cached_mean = mixed.cached_mean;
    return c.belief().step(model, mixed, c.full_rung(), c.top_clock()).latency_ms /
           c.belief().step(model, plain, c.full_rung(), c.top_clock()).latency_ms;
  }

  static constexpr double kLate = 0.1;  // ms that count as left where none are
  PaperTaskOptions options_;
  std::vector<Prompt> prompts_;  // kept between calls
};

}  // namespace festina::simulator
