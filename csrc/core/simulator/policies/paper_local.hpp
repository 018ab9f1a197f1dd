#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/operating_point/solver.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/paper_tasks.hpp"

// The paper's local scheduler on a simulated GPU (arXiv 2606.30391, section 3.4): the most urgent
// tasks that fit run side by side on SM partitions, at the clock of least energy. A change of the
// clock takes its time; until then tasks get the SMs that they need at the clock the GPU has.
namespace festina::simulator {

struct PaperLocalOptions {
  bool operating_point = true;  // else equal shares of the SMs at the default clock
  PaperTaskOptions tasks;
};

class PaperLocal {
 public:
  PaperLocal(const Cluster& c, const PaperLocalOptions& options)
      : options_(options),
        tasks_(options.tasks),
        sweep_(c.table(), solver_options(true)),
        split_(c.table(), solver_options(false)),
        deadlines_(static_cast<std::size_t>(c.gpus())) {
    for (auto& of_gpu : deadlines_) of_gpu.assign(static_cast<std::size_t>(c.models()), kNever);
  }

  void dispatch(Cluster& c, Gpu& g) {
    if (!g.awake()) return;
    make_room(c, g);
    collect(c, g);
    if (ready_.empty()) return;
    if (!options_.operating_point) return run_alike(c, g);
    set_clock(c, g);
    if (options_.tasks.by_score) {
      run_admitted(c, g, ready_);
      leave_prompts(c, g);
      run_admitted(c, g, ready_);
    } else {
      run_in_order(c, g);
    }
  }

 private:
  static operating_point::Options solver_options(bool clocks_settable) {
    operating_point::Options o;
    o.policy = operating_point::Policy::paper;
    o.clocks_settable = clocks_settable;
    return o;
  }

  void collect(const Cluster& c, const Gpu& g) {
    ready_.clear();
    for (const auto& l : g.lanes) {
      if (l->weights != Weights::ready || l->busy || l->empty()) continue;
      PaperTask t = tasks_.next(c, g, *l, true);
      if (t.decodes > 0 || !t.chunks.empty()) ready_.push_back(std::move(t));
    }
  }

  // --- memory -----------------------------------------------------------------------------------
  // Outputs grew beyond what was expected: those that did come first, and the request that is
  // cheapest to recompute gives up its cache.
  void make_room(Cluster& c, Gpu& g) const {
    while (g.weight_bytes + g.kv_bytes + growth_bytes(c, g) > c.device().memory_bytes) {
      const int victim = cheapest(c, g);
      if (victim == kNone) return;
      c.evict(victim);
    }
  }
  static double growth_bytes(const Cluster& c, const Gpu& g) {
    double bytes = 0;
    for (const auto& l : g.lanes) {
      bytes += c.kv_bytes(l->model, static_cast<double>(l->running.size()));
    }
    return bytes;
  }
  static int cheapest(const Cluster& c, const Gpu& g) {
    int best = kNone;
    double least_ms = kNever;
    std::size_t running = 0;
    for (const auto& l : g.lanes) {
      running += l->running.size();
      if (l->busy) continue;
      for (const int r : l->running) {
        const Request& q = c.request(r);
        StepWork w;
        w.tokens = std::max(1, q.prompt_tokens());
        double ms = c.belief().step(l->model, w, c.full_rung(), g.clock).latency_ms;
        if (q.generated > c.expected_output(l->model)) ms += kOutgrown;
        if (ms >= least_ms) continue;
        least_ms = ms;
        best = r;
      }
    }
    return running > 1 ? best : kNone;
  }

  // --- without an operating point ---------------------------------------------------------------
  // Models with something to do share the SMs alike.
  void run_alike(Cluster& c, Gpu& g) {
    std::stable_sort(ready_.begin(), ready_.end(),
                     [&](const PaperTask& a, const PaperTask& b) { return before(c, g, a, b); });
    const auto models = static_cast<int>(
        std::count_if(g.lanes.begin(), g.lanes.end(), [](const auto& l) { return !l->empty(); }));
    const int share = std::max(c.table().sms(0), c.table().sms(c.full_rung()) / models);
    for (PaperTask& t : ready_) {
      const int rung = c.table().rung_within(std::min(share, state_of(c, g).sms));
      if (rung < 0) return;
      start(c, g, t, rung);
    }
  }
  bool before(const Cluster& c, const Gpu& g, const PaperTask& a, const PaperTask& b) const {
    if (!options_.tasks.by_score) return a.runnable_ms < b.runnable_ms;
    return urgency(c, g, a) > urgency(c, g, b);
  }
  static std::uint32_t urgency(const Cluster& c, const Gpu& g, const PaperTask& t) {
    const double ms = c.predict_ms(*t.lane, t.decodes, t.chunks, c.full_rung(), g.clock);
    return operating_point::urgency(static_cast<float>(ms),
                                    static_cast<float>(t.deadline_ms - c.now_ms()), 1,
                                    static_cast<float>(t.age_ms));
  }

  // --- the clock --------------------------------------------------------------------------------
  // Of least energy for all that runs and could run. A switch under way is waited for.
  void set_clock(Cluster& c, Gpu& g) {
    if (g.switching()) return;
    asked_.clear();
    for (const Step& s : g.steps) asked_.push_back(tasks_.under_way(c, s, deadline_ms(g, *s.lane)));
    for (const PaperTask& t : ready_) asked_.push_back(t.task);
    operating_point::State state = state_of(c, g);
    state.sms = c.table().sms(c.full_rung());
    int clock = sweep_.solve(asked_, state).clock;
    for (std::size_t i = 0; i < g.steps.size(); ++i) {
      clock = std::max(clock, least_clock(c, asked_[i], g.steps[i].rung));
    }
    c.set_clock(g, clock);
  }
  // At which a step that has its SMs already is in time.
  static int least_clock(const Cluster& c, const operating_point::Task& t, int rung) {
    const WorkPoint w = c.table().locate(t.model, static_cast<Phase>(t.phase), t.work0, t.work1);
    int clock = 0;
    while (clock < c.top_clock() && c.table().cost(w, rung, clock).latency_ms > t.deadline_ms) {
      ++clock;
    }
    return clock;
  }

  operating_point::State state_of(const Cluster& c, const Gpu& g) const {
    int sms = c.table().sms(c.full_rung());
    for (const Step& s : g.steps) sms -= c.table().sms(s.rung);
    return {c.table().clock_mhz(g.clock), sms, std::max(0.0, c.memory_free_bytes(g))};
  }

  // --- side by side -----------------------------------------------------------------------------
  const operating_point::Plan* split(const Cluster& c, const Gpu& g,
                                     std::span<const PaperTask> tasks) {
    const operating_point::State state = state_of(c, g);
    if (tasks.empty() || state.sms < c.table().sms(0)) return nullptr;
    asked_.clear();
    for (const PaperTask& t : tasks) asked_.push_back(t.task);
    return &split_.solve(asked_, state);
  }

  // Starts those that the solver admits; the others stay in `tasks`.
  void run_admitted(Cluster& c, Gpu& g, std::vector<PaperTask>& tasks) {
    const operating_point::Plan* plan = split(c, g, tasks);
    if (plan == nullptr) return;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (plan->rung[i] >= 0) {
        start(c, g, tasks[i], plan->rung[i]);
      } else {
        if (kept != i) tasks[kept] = std::move(tasks[i]);
        ++kept;
      }
    }
    tasks.resize(kept);
  }

  // Decodes of steps that did not fit may do so without their prompts.
  void leave_prompts(const Cluster& c, const Gpu& g) {
    std::erase_if(ready_, [](const PaperTask& t) { return t.decodes == 0 || t.chunks.empty(); });
    for (PaperTask& t : ready_) t = tasks_.next(c, g, *t.lane, false);
  }

  // First come, first served: as many as fit together, nobody overtakes.
  void run_in_order(Cluster& c, Gpu& g) {
    std::stable_sort(ready_.begin(), ready_.end(), [](const PaperTask& a, const PaperTask& b) {
      return a.runnable_ms < b.runnable_ms;
    });
    for (std::size_t n = ready_.size(); n > 0; --n) {
      const operating_point::Plan* plan = split(c, g, std::span(ready_).first(n));
      if (plan == nullptr) return;
      const bool all = std::all_of(plan->rung.begin(), plan->rung.end(),
                                   [](std::int32_t rung) { return rung >= 0; });
      if (!all) continue;
      for (std::size_t i = 0; i < n; ++i) start(c, g, ready_[i], plan->rung[i]);
      return;
    }
  }

  void start(Cluster& c, Gpu& g, PaperTask& t, int rung) {
    deadline_ms(g, *t.lane) = t.deadline_ms;
    c.start(g, *t.lane, t.decodes, std::move(t.chunks), rung);
  }
  double& deadline_ms(const Gpu& g, const Lane& l) {
    return deadlines_[static_cast<std::size_t>(g.index)][static_cast<std::size_t>(l.model)];
  }

  static constexpr double kOutgrown = 1e9;  // ms: last among those that may be evicted
  PaperLocalOptions options_;
  PaperTasks tasks_;
  operating_point::Solver sweep_;               // the clock, for all tasks
  operating_point::Solver split_;               // SMs at the clock that the GPU has
  std::vector<std::vector<double>> deadlines_;  // of steps under way, by GPU and model
  std::vector<PaperTask> ready_;                // kept between calls
  std::vector<operating_point::Task> asked_;
};

}  // namespace festina::simulator
