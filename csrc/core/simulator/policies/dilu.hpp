#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/continuous_batching.hpp"
#include "core/simulator/policies/dilu_profile.hpp"
#include "core/simulator/policies/dilu_scheduler.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/settings.hpp"

// Dilu (Lv et al., ASPLOS'25, arXiv 2503.05130), by its published rules:
// - Profiling finds for each model the SMs it asks for, a limit, and the batch that fits its
//   objectives (section 3.2; dilu_profile.hpp).
// - Instances start on demand, packed onto few GPUs by best fit on SMs and memory, the sums of
//   requests and limits bounded (section 3.3; dilu_scheduler.hpp); GPUs without any are given up.
// - Vertical scaling (section 3.4.1): live quotas. Those who have work share the GPU in proportion
//   to their requests, each up to its limit; as neighbours become busy, quotas fall back to the
//   requests, as they become idle, quotas rise again. A quota changes from step to step.
// - Horizontal scaling is lazy (section 3.4.2): an instance is added after enough seconds of a
//   window above the capacity, given up after enough below what one fewer serves.
// - Requests run first come, first served.
// In its favour: engines batch continuously, with prompts in chunks; idle instances make way at
// once where memory is short; declared loads give the instances of the start; shares of objectives,
// limits and their bounds are those that serve it best on the named workloads.
// Left out: training jobs, which it places beside inference, and instances over several GPUs: there
// are none here.
namespace festina::simulator {

struct DiluOptions {
  DiluProfileOptions profile;
  DiluSchedulerOptions scheduler;
  double keep_alive_s = 300;  // of a model's last instance

  explicit DiluOptions(Settings& from) {
    from.take("slo_share", profile.slo_share);
    from.take("limit_factor", profile.limit_factor);
    from.take("kv_headroom", profile.kv_headroom);
    from.take("requests_max", scheduler.requests_max);
    from.take("limits_max", scheduler.limits_max);
    from.take("window", scheduler.window, 1);
    from.take("out_samples", scheduler.out_samples);
    from.take("in_samples", scheduler.in_samples);
    from.take("keep_alive_s", keep_alive_s);
  }
};

class Dilu : public Policy {
 public:
  explicit Dilu(const DiluOptions& options) : options_(options) {}

  void start(Cluster& c) override {
    const DiluProfile profile(c, options_.profile);
    std::vector<DiluQuota> quotas;
    for (int m = 0; m < c.models(); ++m) quotas.push_back(profile.quota(m));
    instances_ = std::make_unique<DiluInstances>(c, options_.scheduler, std::move(quotas));
    constexpr double kPaceMs = 100;  // by which declared loads are compared
    for (const int m : by_load(c, c.default_clock(), kPaceMs)) {
      const double wanted = c.hint(m).requests_per_s / instances_->quota(m).requests_per_s;
      for (int i = 0; i < std::max(1, static_cast<int>(std::ceil(wanted))); ++i) {
        const int gpu = instances_->fit(m);
        if (gpu == kNone) break;
        instances_->add(m, gpu);
        c.preload(c.gpu(gpu), m);
      }
    }
    for (int i = 0; i < c.gpus(); ++i) {
      if (instances_->empty(i)) c.park(c.gpu(i));
    }
  }

  void arrived(Cluster& c, int r) override {
    const int model = c.request(r).model;
    instances_->arrived(model);
    if (instances_->gpus_of(model).empty()) start_instance(c, model);
    Gpu* best = nullptr;
    for (const int i : instances_->gpus_of(model)) {
      if (best == nullptr || load(c.gpu(i), model) < load(*best, model)) best = &c.gpu(i);
    }
    c.wake(*best);
    c.enqueue(*best, r);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (!g.awake()) return;
    load_wanted(c, g);
    share_out(c, g);
  }

  double tick_ms() const override { return 1000; }
  void tick(Cluster& c) override {
    instances_->sample();
    for (int m = 0; m < c.models(); ++m) {
      if (instances_->wants_more(m)) {
        scale_out(c, m);
      } else if (instances_->wants_fewer(m)) {
        scale_in(c, m);
      }
    }
    for (int i = 0; i < c.gpus(); ++i) give_up_idle(c, c.gpu(i));
  }

 private:
  static int load(const Gpu& g, int model) {
    const Lane* l = g.lane(model);
    return l == nullptr ? 0 : static_cast<int>(l->waiting.size() + l->running.size());
  }

  // From zero: where it fits, else where idle instances make way, else where it waits the least.
  void start_instance(Cluster& c, int model) {
    int gpu = instances_->fit(model);
    if (gpu == kNone) gpu = cheapest_to_load(c, instances_->quota(model).memory_bytes);
    if (gpu == kNone) gpu = least_busy(c);
    instances_->add(model, gpu);
  }

  void scale_out(Cluster& c, int model) {
    const int gpu = instances_->fit(model);
    if (gpu == kNone) return;
    instances_->add(model, gpu);
    instances_->forget(model);
    c.wake(c.gpu(gpu));
    c.lane(c.gpu(gpu), model).last_used_ms = c.now_ms();
    c.touch(c.gpu(gpu));
  }

  // The instance with the least to do takes no more requests; its weights go when it is done.
  void scale_in(Cluster& c, int model) {
    int least = instances_->gpus_of(model).front();
    for (const int i : instances_->gpus_of(model)) {
      if (load(c.gpu(i), model) <= load(c.gpu(least), model)) least = i;
    }
    instances_->remove(model, least);
    instances_->forget(model);
  }

  // Weights of instances that have requests or were just added, and caches, in place of idle
  // weights.
  void load_wanted(Cluster& c, Gpu& g) {
    for (int m = 0; m < c.models(); ++m) {
      const Lane* l = g.lane(m);
      if (l == nullptr || l->weights != Weights::absent) continue;
      const auto& gpus = instances_->gpus_of(m);
      const bool added = gpus.size() > 1 && gpus.back() == g.index;
      if (l->waiting.empty() && !added) continue;
      const double kv_bytes = l->waiting.empty() ? 0 : c.expected_kv_bytes(l->waiting.front());
      if (make_room(c, g, c.weight_bytes(m) + kv_bytes)) c.load(g, m);
    }
    double cache_bytes = 0;
    for (const auto& l : g.lanes) {
      if (l->weights == Weights::ready) {
        cache_bytes = std::max(cache_bytes, lacking_cache_bytes(c, g, *l));
      }
    }
    if (cache_bytes > 0) make_room(c, g, cache_bytes);
  }

  bool make_room(Cluster& c, Gpu& g, double bytes) {
    if (!free_memory(c, g, bytes)) return false;
    for (int m = 0; m < c.models(); ++m) {
      const Lane* l = g.lane(m);
      const bool gone = l == nullptr || (l->weights == Weights::absent && l->empty());
      if (gone) instances_->remove(m, g.index);
    }
    return true;
  }

  // Vertical scaling: starts steps of all that have work, the longest since its last step first.
  void share_out(Cluster& c, Gpu& g) {
    order_.clear();
    double requests = 0;
    int free = c.table().sms(c.full_rung());
    for (const Step& s : g.steps) free -= c.table().sms(s.rung);
    for (const auto& l : g.lanes) {
      if (l->weights != Weights::ready) continue;
      if (!l->busy && l->running.empty() && l->waiting.empty()) continue;
      requests += c.table().sms(instances_->quota(l->model).request);
      if (!l->busy) order_.push_back(l.get());
    }
    std::sort(order_.begin(), order_.end(), [](const Lane* a, const Lane* b) {
      return a->last_step_ms != b->last_step_ms ? a->last_step_ms < b->last_step_ms
                                                : a->model < b->model;
    });
    for (Lane* l : order_) {
      const DiluQuota& q = instances_->quota(l->model);
      const int rung = std::min(quota_rung(c, q, requests), c.table().rung_within(free));
      if (rung < q.request) continue;  // until a neighbour's step ends
      const BatchLimits limits{
          static_cast<double>(q.batch_tokens[static_cast<std::size_t>(rung)] + decodes_of(c, *l))};
      if (start_iteration(c, g, *l, limits, rung)) free -= c.table().sms(rung);
    }
  }

  // The instance's part of the GPU among those that have work, between request and limit.
  static int quota_rung(const Cluster& c, const DiluQuota& q, double requests) {
    const double part =
        c.table().sms(c.full_rung()) * (c.table().sms(q.request) / std::max(requests, 1.0));
    return std::clamp(c.table().rung_within(static_cast<int>(part)), q.request, q.limit);
  }

  void give_up_idle(Cluster& c, Gpu& g) {
    if (!g.awake()) return;
    const double since_ms = c.now_ms() - options_.keep_alive_s * 1000.0;
    for (std::size_t i = g.lanes.size(); i-- > 0;) {
      const Lane& l = *g.lanes[i];
      const auto& gpus = instances_->gpus_of(l.model);
      const bool instance = std::find(gpus.begin(), gpus.end(), g.index) != gpus.end();
      if (!evictable(l) || (instance && l.last_used_ms >= since_ms)) continue;
      instances_->remove(l.model, g.index);
      c.unload(g, l.model);
    }
    if (g.weight_bytes <= 0 && g.requests == 0 && g.steps.empty()) c.park(g);
  }

  DiluOptions options_;
  std::unique_ptr<DiluInstances> instances_;
  std::vector<Lane*> order_;  // kept between calls, so that deciding allocates little
};

}  // namespace festina::simulator
