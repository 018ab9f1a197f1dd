#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/aegaeon_decode.hpp"
#include "core/simulator/policies/aegaeon_plan.hpp"
#include "core/simulator/policies/aegaeon_prefill.hpp"
#include "core/simulator/settings.hpp"

// Aegaeon: Effective GPU Pooling for Concurrent LLM Serving on the Market (SOSP '25,
// doi 10.1145/3731569.3764815).
//
// Follows: prefill and decode on separate GPUs (section 4.1); prompts in groups by model of at most
// 8, first come first served, one prompt at a time (4.2, algorithm 1); decodes in work lists of
// batches with quotas q_i = c / (n_i (alpha - sum 1/n_k)), at most 4 s (4.3, algorithm 2);
// preemption between tokens, weights from pinned host memory into one managed memory, the next
// model's fetched while the current one runs (5.2, 5.3); caches move from GPU to GPU (5.3).
//
// In its favour: weights stay as long as memory lasts and models that are resident take turns token
// by token, so that quotas only bound the turns of batches that do not all fit, and alpha has no
// floor (published: 0.5), as longer turns mean fewer of the gaps that objectives count; a group
// whose weights are there overtakes one that waits for its own; decode GPUs are told of a request
// when it arrives, so that loading overlaps with its prefill; the split is searched offline from
// the declared load, and GPUs that it does not need are parked.
//
// Left out: caches in host memory (GPU memory holds them all here; a full decode GPU leaves them on
// the prefill GPU, as close by), and the engine's start-up costs, which section 5 all but removes.
namespace festina::simulator {

struct AegaeonOptions {
  PlanOptions plan;
  double prefill_gpus = 0;  // 0: searched
  double decode_gpus = 0;   // 0: searched, or all that do not prefill
  double group_max = 8;
  double quota_max_ms = 4000;
  double alpha_min = 0;

  explicit AegaeonOptions(Settings& from) {
    from.take("prefill_gpus", prefill_gpus);
    from.take("decode_gpus", decode_gpus);
    from.take("group_max", group_max, 1);
    from.take("quota_max_ms", quota_max_ms);
    from.take("alpha_min", alpha_min);
    from.take("kv_reserve", plan.kv_reserve);
  }
};

class Aegaeon : public Policy {
 public:
  Aegaeon(const AegaeonOptions& options, int gpus)
      : options_(options),
        prefill_(gpus, static_cast<int>(options.group_max)),
        decode_(gpus, options.quota_max_ms, options.alpha_min) {
    if (gpus < 2)
      throw BadInput("gpus", "at least 2 for aegaeon: prefill and decode run on separate GPUs");
  }

  void start(Cluster& c) override {
    const Split split = chosen(c);
    const int used = split.prefill + split.decode;
    prefill_.use(split.prefill);
    decode_.use(c, split.prefill, used);
    preload_pool(c, 0, split.prefill, kPrefillReserve);
    preload_pool(c, split.prefill, used, options_.plan.kv_reserve);
    for (int i = used; i < c.gpus(); ++i) c.park(c.gpu(i));
    target_.assign(c.requests().size(), kNone);
  }

  void arrived(Cluster& c, int r) override {
    prefill_.arrived(c, r);
    target(r) = decode_.choose(c, r);
    decode_.expect(c, target(r), c.request(r).model);
  }

  void prefilled(Cluster& c, int r) override {
    Gpu& g = c.gpu(c.request(r).gpu);
    if (decode_.owns(g)) return c.join(g, r);
    held_.push_back(r);
    release(c, c.gpu(target(r)));
  }

  void finished(Cluster& c, int r) override {
    if (target(r) != c.request(r).gpu) decode_.came(target(r), c.request(r).model);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (!g.awake()) return;
    if (decode_.owns(g)) {
      release(c, g);
      govern_decode(c, g);
      return decode_.dispatch(c, g);
    }
    govern_prefill(c, g);
    prefill_.dispatch(c, g, [this, &c](const Gpu& at, int model) { return holds(c, at, model); });
  }

 protected:
  // Called before the next step is chosen.
  virtual void govern_prefill(Cluster& /*c*/, Gpu& /*g*/) {}
  virtual void govern_decode(Cluster& /*c*/, Gpu& /*g*/) {}
  const AegaeonPrefill& prefill() const noexcept { return prefill_; }
  const AegaeonDecode& decode() const noexcept { return decode_; }

 private:
  int& target(int r) { return target_[static_cast<std::size_t>(r)]; }

  Split chosen(const Cluster& c) const {
    const int prefill = static_cast<int>(options_.prefill_gpus);
    if (prefill <= 0) return AegaeonPlan(c, options_.plan).best();
    const int decode =
        options_.decode_gpus > 0 ? static_cast<int>(options_.decode_gpus) : c.gpus() - prefill;
    if (decode < 1 || prefill + decode > c.gpus()) {
      throw BadInput("options.prefill_gpus", "with decode_gpus at most all GPUs, each at least 1");
    }
    return {prefill, decode};
  }

  // Sends the caches that this decode GPU has room for, the oldest first.
  void release(Cluster& c, Gpu& g) {
    for (std::size_t i = 0; i < held_.size();) {
      const int r = held_[i];
      if (target(r) != g.index) {
        ++i;
        continue;
      }
      if (!decode_.has_room(c, g, r)) return;
      held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
      decode_.came(g.index, c.request(r).model);
      c.hand_over(r, g);
    }
  }
  bool holds(const Cluster& c, const Gpu& g, int model) const {
    return std::any_of(held_.begin(), held_.end(), [&](int r) {
      return c.request(r).gpu == g.index && c.request(r).model == model;
    });
  }

  AegaeonOptions options_;
  AegaeonPrefill prefill_;
  AegaeonDecode decode_;
  std::vector<int> target_;  // by request: where it will decode
  std::vector<int> held_;    // prompts that are done, their caches still on the prefill GPU
};

}  // namespace festina::simulator
