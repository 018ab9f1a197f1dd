#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/residency.hpp"

// MuxServe's offline placement (arXiv 2404.02015, section 3.2), from declared loads.
namespace festina::simulator {

struct MuxPlacementOptions {
  double prefill_share = 0.85;  // of the SMs, at least, for prompts
  double overload = 0.2;        // of the SMs, by which decode shares may exceed the GPU
};

// Where each model lives, and its SMs: fixed for the whole run.
struct MuxPlan {
  std::vector<int> home;          // GPU of a model
  std::vector<bool> resident;     // its weights fit beside the others at the start
  std::vector<int> decode_rung;   // of a model
  std::vector<int> prefill_rung;  // of a GPU
};

class MuxPlacement {
 public:
  MuxPlacement(Cluster& cluster, const MuxPlacementOptions& options)
      : c_(cluster),
        options_(options),
        units_(static_cast<std::size_t>(cluster.gpus())),
        total_sms_(cluster.table().sms(cluster.full_rung())) {}

  // Algorithm 1 for models that fit one GPU, so that every mesh is one: models in order of their
  // computation, each to the unit whose throughput gains most.
  MuxPlan plan() {
    const auto models = static_cast<std::size_t>(c_.models());
    MuxPlan plan{std::vector<int>(models, 0), std::vector<bool>(models, true),
                 std::vector<int>(models, 0), std::vector<int>(units_.size(), c_.full_rung())};
    for (int m = 0; m < c_.models(); ++m) plan.decode_rung[at(m)] = candidate(m);
    for (const int m : by_load(c_, c_.default_clock(), kPaceMs)) {
      const Member member{m, plan.decode_rung[at(m)]};
      int best = best_unit(member, true, true);
      if (best == kNone) best = best_unit(member, false, true);  // in turn, by the batch scheduler
      plan.resident[at(m)] = best != kNone;
      if (best == kNone) best = best_unit(member, false, false);  // offloaded until it is wanted
      plan.home[at(m)] = best;
      place(member, at(best), plan.resident[at(m)]);
    }
    for (std::size_t u = 0; u < units_.size(); ++u) plan.prefill_rung[u] = prefill_rung(units_[u]);
    return plan;
  }

 private:
  static constexpr double kPaceMs = 100;        // by which declared loads are compared
  static constexpr double kActivations = 0.05;  // of memory, that neither weights nor caches use

  struct Member {
    int model;
    int rung;  // of decodes
  };
  struct Unit {
    std::vector<Member> members;
    double throughput = 0;    // requests/s
    double load = 0;          // share of the GPU's time
    double weight_bytes = 0;  // resident
    int sms = 0;
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }

  double decode_ms(int model, double batch, int rung) const {
    const Hint& h = c_.hint(model);
    StepWork w;
    w.decodes = std::max(1, static_cast<int>(std::lround(batch)));
    w.context_mean = h.input_tokens + h.output_tokens / 2;
    return c_.belief().step(model, w, rung, c_.default_clock()).latency_ms;
  }
  double prefill_ms(int model, double batch) const {
    StepWork w;
    w.tokens = std::max(1, static_cast<int>(batch * c_.hint(model).input_tokens));
    return c_.belief().step(model, w, c_.full_rung(), c_.default_clock()).latency_ms;
  }

  // Algorithm 2: the fewest SMs on which decodes carry the declared rate (and, ours, stay within
  // the objective between tokens); the most SMs if none does.
  int candidate(int model) const {
    const Hint& h = c_.hint(model);
    for (int rung = 0; rung < c_.full_rung(); ++rung) {
      for (double batch = 1; batch <= c_.setup().batch_max; batch *= 2) {
        const double step_ms = decode_ms(model, batch, rung);
        if (step_ms > h.tbt_ms) break;
        const double per_s =
            batch / (prefill_ms(model, batch) + h.output_tokens * step_ms) * 1000.0;
        if (per_s >= h.requests_per_s) return rung;
      }
    }
    return c_.full_rung();
  }

  // Requests/s of a unit: prompts run one after the other, decodes side by side; the batch of the
  // model that is furthest behind its rate grows until all keep up or caches are full.
  double throughput(const std::vector<Member>& members, double weight_bytes) const {
    const double pool = c_.device().memory_bytes * (1 - kActivations) - weight_bytes;
    double wanted_bytes = 0;
    for (const Member& m : members) wanted_bytes += cache_rate(m.model);
    std::vector<double> batch(members.size(), 1.0);
    std::vector<double> per_s(members.size(), 0.0);
    for (;;) {
      double prefills_ms = 0;
      for (std::size_t i = 0; i < members.size(); ++i) {
        prefills_ms += prefill_ms(members[i].model, batch[i]);
      }
      std::size_t behind = members.size();
      double least = 1;
      double sum = 0;
      for (std::size_t i = 0; i < members.size(); ++i) {
        const Hint& h = c_.hint(members[i].model);
        if (h.requests_per_s <= 0) continue;
        const double step_ms = decode_ms(members[i].model, batch[i], members[i].rung);
        per_s[i] = batch[i] / (prefills_ms + h.output_tokens * step_ms) * 1000.0;
        const double kept = per_s[i] / h.requests_per_s;
        sum += std::min(1.0, kept) * h.requests_per_s;
        const double share = pool * cache_rate(members[i].model) / wanted_bytes;
        const bool grows = batch[i] + 1 <= share / sequence_bytes(members[i].model) &&
                           batch[i] < c_.setup().batch_max;
        if (kept < least && grows) {
          least = kept;
          behind = i;
        }
      }
      if (behind == members.size()) return sum;
      batch[behind] += 1;
    }
  }
  double sequence_bytes(int model) const {
    const Hint& h = c_.hint(model);
    return std::max(1.0, c_.kv_bytes(model, h.input_tokens + h.output_tokens));
  }
  double cache_rate(int model) const {
    return std::max(1e-9, c_.hint(model).requests_per_s) * sequence_bytes(model);
  }

  // The unit that gains most; among equals the one with the least load, then the most memory.
  int best_unit(const Member& member, bool within_sms, bool within_memory) const {
    const double usable = c_.device().memory_bytes * (1 - kActivations);
    int best = kNone;
    double best_gain = 0;
    for (std::size_t u = 0; u < units_.size(); ++u) {
      const Unit& unit = units_[u];
      const double weight_bytes = unit.weight_bytes + c_.weight_bytes(member.model);
      const double caches =
          declared_kv_bytes(c_, member.model, kPaceMs) + sequence_bytes(member.model);
      if (within_memory && weight_bytes + caches > usable) continue;
      const int sms = unit.sms + c_.table().sms(member.rung);
      if (within_sms && sms > (1 + options_.overload) * total_sms_) continue;
      std::vector<Member> members = unit.members;
      members.push_back(member);
      const double gain = throughput(members, weight_bytes) - unit.throughput;
      if (best != kNone && !better(gain, best_gain, unit, units_[at(best)])) continue;
      best = static_cast<int>(u);
      best_gain = gain;
    }
    return best;
  }
  static bool better(double gain, double best_gain, const Unit& unit, const Unit& best) {
    constexpr double kEqual = 1e-9;
    if (std::abs(gain - best_gain) > kEqual) return gain > best_gain;
    if (unit.load != best.load) return unit.load < best.load;
    return unit.weight_bytes < best.weight_bytes;
  }

  void place(const Member& member, std::size_t unit_index, bool resident) {
    Unit& unit = units_[unit_index];
    unit.members.push_back(member);
    unit.sms += c_.table().sms(member.rung);
    unit.load += declared_share(c_, member.model, c_.default_clock(), kPaceMs);
    if (resident) unit.weight_bytes += c_.weight_bytes(member.model);
    unit.throughput = throughput(unit.members, unit.weight_bytes);
  }

  // Prompts get what the decodes of all members leave, and never less than their share.
  int prefill_rung(const Unit& unit) const {
    const double sms =
        std::max(static_cast<double>(total_sms_ - unit.sms), options_.prefill_share * total_sms_);
    return std::max(0, c_.table().rung_within(static_cast<int>(sms)));
  }

  Cluster& c_;
  MuxPlacementOptions options_;
  std::vector<Unit> units_;
  int total_sms_;
};

}  // namespace festina::simulator
