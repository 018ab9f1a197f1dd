#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/continuous_batching.hpp"
#include "core/simulator/policies/muxserve_placement.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/settings.hpp"

// MuxServe (Duan et al., ICML'24, arXiv 2404.02015), by its published rules:
// - Placement is made once, offline, from declared loads (section 3.2; muxserve_placement.hpp).
// - Prompts and decodes of a model are separate jobs with static SM shares: many SMs for prompts,
//   for decodes the fewest that carry the load (section 3.2, Algorithm 2).
// - Adaptive batch scheduling (section 3.3, Algorithm 3): one prompt job at a time, models taking
//   turns; if its SMs are not free, no decode starts until they are; decode jobs fill what is left,
//   models taking turns. Each model has a quota of the KV cache, in proportion to its load and
//   shape, which moves from those that use little of it to those that use all.
// - Weights of co-located models share one memory with all KV caches (section 3.4).
// Extended as the Festina paper extends it (arXiv 2606.30391, section 4.1): any number of models a
// GPU, and keep-alive: weights that were idle for long, or the least recently used where others
// need memory, are offloaded to the host and come back when wanted; a GPU without any is given up.
// Left out: meshes of several GPUs, as every model here fits one. That costs it nothing: tensor
// parallelism pays where one GPU is too small or too slow.
namespace festina::simulator {

struct MuxServeOptions {
  MuxPlacementOptions placement;
  double prefill_tokens = 2048;  // of a job; a longer prompt runs alone, and whole
  double keep_alive_s = 300;
  double adapt_s = 8;  // between changes of quotas

  explicit MuxServeOptions(Settings& from) {
    from.take("prefill_share", placement.prefill_share);
    from.take("overload", placement.overload);
    from.take("prefill_tokens", prefill_tokens, 1);
    from.take("keep_alive_s", keep_alive_s);
    from.take("adapt_s", adapt_s);
  }
};

class MuxServe : public Policy {
 public:
  MuxServe(const MuxServeOptions& options, int gpus)
      : options_(options), turns_(static_cast<std::size_t>(gpus)) {}

  void start(Cluster& c) override {
    plan_ = MuxPlacement(c, options_.placement).plan();
    const auto models = static_cast<std::size_t>(c.models());
    quota_bytes_.assign(models, 0.0);
    for (int m = 0; m < c.models(); ++m) {
      if (plan_.resident[at(m)]) c.preload(c.gpu(plan_.home[at(m)]), m);
    }
    for (int i = 0; i < c.gpus(); ++i) share_cache(c, c.gpu(i));
  }

  void arrived(Cluster& c, int r) override {
    Gpu& g = c.gpu(plan_.home[at(c.request(r).model)]);
    c.wake(g);
    c.enqueue(g, r);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (!g.awake()) return;
    load_wanted(c, g);
    make_cache_room(c, g);
    if (start_prefill(c, g)) start_decodes(c, g);
  }

  double tick_ms() const override { return 1000; }
  void tick(Cluster& c) override {
    const bool adapts = c.now_ms() >= adapted_ms_ + options_.adapt_s * 1000.0;
    if (adapts) adapted_ms_ = c.now_ms();
    for (int i = 0; i < c.gpus(); ++i) {
      Gpu& g = c.gpu(i);
      if (!g.awake()) continue;
      if (adapts) adapt_quotas(c, g);
      offload_idle(c, g);
    }
  }

 private:
  struct Turns {
    std::size_t prefill = 0;  // model that comes first next time
    std::size_t decode = 0;
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  static int free_sms(const Cluster& c, const Gpu& g) {
    int sms = c.table().sms(c.full_rung());
    for (const Step& s : g.steps) sms -= c.table().sms(s.rung);
    return sms;
  }

  // Starts the next prompt job. False: one waits for SMs, and decodes must not take them.
  bool start_prefill(Cluster& c, Gpu& g) {
    for (const Step& s : g.steps) {
      if (!s.chunks.empty()) return true;
    }
    std::size_t& turn = turns_[at(g.index)].prefill;
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      Lane& l = *g.lanes[(turn + i) % g.lanes.size()];
      if (l.weights != Weights::ready || l.waiting.empty()) continue;
      std::vector<Chunk> job = prompts(c, g, l);
      if (job.empty()) continue;
      const int rung = plan_.prefill_rung[at(g.index)];
      if (c.table().sms(rung) > free_sms(c, g)) return false;
      turn = (turn + i + 1) % g.lanes.size();
      c.start(g, l, 0, std::move(job), rung);
      return true;
    }
    return true;
  }

  // Whole prompts in order of arrival, as far as the job's tokens and the model's quota go.
  std::vector<Chunk> prompts(const Cluster& c, const Gpu& g, const Lane& l) const {
    std::vector<Chunk> job;
    double left = options_.prefill_tokens;
    double room_bytes = c.memory_free_bytes(g);
    double quota_bytes =
        contested(g, l) ? quota_bytes_[at(l.model)] - l.reserved_bytes : room_bytes;
    for (const int r : l.waiting) {
      const int tokens = c.request(r).uncached();
      if (!job.empty() && tokens > left) break;
      const double need_bytes = c.expected_kv_bytes(r);
      const bool alone = job.empty() && l.reserved_bytes <= 0 && c.has_room(g, r);
      if ((need_bytes > quota_bytes || need_bytes > room_bytes) && !alone) break;
      quota_bytes -= need_bytes;
      room_bytes -= need_bytes;
      left -= tokens;
      job.push_back({r, tokens});
      if (static_cast<int>(job.size()) >= c.setup().batch_max) break;
    }
    return job;
  }

  // Others wait for caches too: quotas bind. Adapting them at once comes to the same as adapting
  // them often.
  static bool contested(const Gpu& g, const Lane& l) {
    return std::any_of(g.lanes.begin(), g.lanes.end(), [&l](const auto& other) {
      return other.get() != &l && !other->waiting.empty();
    });
  }

  void start_decodes(Cluster& c, Gpu& g) {
    std::size_t& turn = turns_[at(g.index)].decode;
    const std::size_t first = turn;
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const std::size_t index = (first + i) % g.lanes.size();
      Lane& l = *g.lanes[index];
      if (l.weights != Weights::ready || l.running.empty() || l.decoding) continue;
      const int rung = plan_.decode_rung[at(l.model)];
      if (c.table().sms(rung) > free_sms(c, g)) continue;
      c.start(g, l, decodes_of(c, l), {}, rung);
      turn = (index + 1) % g.lanes.size();
    }
  }

  static void load_wanted(Cluster& c, Gpu& g) {
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const Lane& l = *g.lanes[i];
      if (l.weights != Weights::absent || l.waiting.empty()) continue;
      const int model = l.model;
      const double need = c.weight_bytes(model) + c.expected_kv_bytes(l.waiting.front());
      if (!free_memory(c, g, need)) continue;
      c.load(g, model);
      i = 0;  // unloading reorders lanes
    }
  }

  static void make_cache_room(Cluster& c, Gpu& g) {
    double bytes = 0;
    for (const auto& l : g.lanes) {
      if (l->weights == Weights::ready) bytes = std::max(bytes, lacking_cache_bytes(c, g, *l));
    }
    free_memory(c, g, bytes);
  }

  // KV cache that a model is worth: its declared rate times the cache of a mean request.
  static double claim(const Cluster& c, int model) {
    const Hint& h = c.hint(model);
    return h.requests_per_s * c.kv_bytes(model, h.input_tokens + h.output_tokens);
  }
  static double cache_bytes(const Cluster& c, const Gpu& g) {
    return std::max(0.0, c.device().memory_bytes - g.weight_bytes);
  }

  // Quotas as at the start: in proportion to the claims of the models that live here.
  void share_cache(const Cluster& c, const Gpu& g) {
    double sum = 0;
    for (int m = 0; m < c.models(); ++m) sum += plan_.home[at(m)] == g.index ? claim(c, m) : 0;
    for (int m = 0; m < c.models() && sum > 0; ++m) {
      if (plan_.home[at(m)] != g.index) continue;
      quota_bytes_[at(m)] = cache_bytes(c, g) * claim(c, m) / sum;
    }
  }

  // Models that use nearly all of their quota get what the others left of theirs.
  void adapt_quotas(const Cluster& c, const Gpu& g) {
    constexpr double kFull = 0.9;
    share_cache(c, g);
    double spare_bytes = 0;
    double wanted_bytes = 0;
    for (const auto& l : g.lanes) {
      double& quota = quota_bytes_[at(l->model)];
      if (l->reserved_bytes >= kFull * quota) {
        wanted_bytes += std::max(1.0, quota);
      } else {
        const double left = (kFull * quota - l->reserved_bytes) * kFull;
        spare_bytes += left;
        quota -= left;
      }
    }
    for (const auto& l : g.lanes) {
      double& quota = quota_bytes_[at(l->model)];
      if (l->reserved_bytes < kFull * quota || wanted_bytes <= 0) continue;
      quota += spare_bytes * std::max(1.0, quota) / wanted_bytes;
    }
  }

  void offload_idle(Cluster& c, Gpu& g) const {
    const double since_ms = c.now_ms() - options_.keep_alive_s * 1000.0;
    for (std::size_t i = g.lanes.size(); i-- > 0;) {
      const Lane& l = *g.lanes[i];
      if (evictable(l) && l.last_used_ms < since_ms) c.unload(g, l.model);
    }
    if (g.weight_bytes <= 0 && g.requests == 0 && g.steps.empty()) c.park(g);
  }

  MuxServeOptions options_;
  MuxPlan plan_;
  std::vector<Turns> turns_;
  std::vector<double> quota_bytes_;  // by model
  double adapted_ms_ = 0;
};

}  // namespace festina::simulator
