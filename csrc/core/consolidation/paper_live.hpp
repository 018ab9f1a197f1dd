#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/consolidation/kinds.hpp"
#include "core/consolidation/paper.hpp"

// The paper's rule on a cluster that serves: one kind of GPU, caches in pools of a fixed size.
namespace festina::consolidation {

// What was asked of one model within the window; `per_ms` 0: nothing.
struct DemandRow {
  double per_ms;
  double input_tokens;
  double output_tokens;
  double ttft_ms;
  double tbt_ms;
};

struct PaperOptions {
  double window_ms = 300'000;  // section 3.5.2
  double reserve = 0.05;       // of SMs and memory, appendix G
  double peer_bytes_per_s = 50e9;
};

// Where models belong, and which GPUs are left empty.
struct PaperPlan {
  std::vector<Move> moves;
  std::vector<int> drained;
};

// `demands` is by model, `active` the GPUs that are not parked, all of one kind.
class PaperRule {
 public:
  PaperRule(const Kinds& kinds, const PaperOptions& options, std::span<const GpuState> gpus,
            std::span<const DemandRow> demands)
      : kinds_(kinds), options_(options), gpus_(gpus), demands_(demands) {}

  std::optional<PaperPlan> plan(std::span<const int> active, double memory_bytes) {
    if (active.size() < 2) return std::nullopt;
    collect(active.front());
    const double share = 1 - options_.reserve;
    const GpuCost& cost = kinds_.cost(active.front());
    const packing::Capacity capacity{share * cost.table->sms(cost.rung), share * memory_bytes};
    const std::optional<Bins> bins = fewer_gpus(items_, capacity, active.size());
    if (!bins) return std::nullopt;
    const std::vector<int> chosen =
        gpus_of(*bins, active,
                [this](const std::vector<int>& bin, int gpu) { return transfer_ms(bin, gpu); });
    PaperPlan plan;
    std::vector<bool> needed(gpus_.size(), false);
    for (std::size_t b = 0; b < bins->size(); ++b) {
      needed[static_cast<std::size_t>(chosen[b])] = true;
      for (const int i : (*bins)[b]) {
        plan.moves.push_back({models_[static_cast<std::size_t>(i)], chosen[b]});
      }
    }
    for (const int gpu : active) {
      if (!needed[static_cast<std::size_t>(gpu)]) plan.drained.push_back(gpu);
    }
    return plan;
  }

 private:
  void collect(int gpu) {
    for (int m = 0; m < kinds_.models(); ++m) {
      if (kinds_.profile(gpu, m) < 0) continue;
      const DemandRow& d = demands_[static_cast<std::size_t>(m)];
      const PaperModel model = kinds_.paper_model(gpu, m);
      if (d.per_ms > 0) {
        models_.push_back(m);
        items_.push_back(demand_of(model,
                                   {d.per_ms, d.input_tokens, d.output_tokens, d.ttft_ms, d.tbt_ms},
                                   options_.window_ms));
      } else if (at_work(m)) {
        models_.push_back(m);
        items_.push_back(least_demand_of(model));
      }
    }
  }
  bool at_work(int model) const {
    for (const GpuState& g : gpus_) {
      for (const Resident& r : g.residents) {
        if (r.model == model && !r.idle) return true;
      }
    }
    return false;
  }

  // Bytes over bandwidth: weights that the GPU lacks, and caches that are elsewhere.
  double transfer_ms(const std::vector<int>& bin, int gpu) const {
    double ms = 0;
    for (const int i : bin) {
      const int model = models_[static_cast<std::size_t>(i)];
      bool here = false;
      for (std::size_t g = 0; g < gpus_.size(); ++g) {
        for (const Resident& r : gpus_[g].residents) {
          if (r.model != model) continue;
          if (static_cast<int>(g) == gpu) {
            here = true;
          } else {
            ms += r.cache_bytes / options_.peer_bytes_per_s * 1000.0;
          }
        }
      }
      if (!here) ms += kinds_.load_ms(gpu, model);
    }
    return ms;
  }

  const Kinds& kinds_;
  const PaperOptions& options_;
  std::span<const GpuState> gpus_;
  std::span<const DemandRow> demands_;
  std::vector<int> models_;           // that are packed
  std::vector<packing::Item> items_;  // their demands
};

}  // namespace festina::consolidation
