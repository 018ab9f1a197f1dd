#pragma once
#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/consolidation/paper.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/paper_demand.hpp"
#include "core/simulator/policies/paper_moves.hpp"

// When and where models move together so that GPUs can be parked (arXiv 2606.30391, section 3.5.2
// and appendices E to G): when a model has been idle for its keep-alive and fewer GPUs would do.
namespace festina::simulator {

struct PaperConsolidationOptions {
  double window_ms = 300'000;      // section 3.5.2
  double reserve = 0.05;           // of SMs and memory, appendix G
  double keep_alive_ms = 120'000;  // the paper gives none
};

class PaperConsolidation {
 public:
  PaperConsolidation(const Cluster& c, const PaperConsolidationOptions& options)
      : options_(options),
        windows_(static_cast<std::size_t>(c.models()), LoadWindow(options.window_ms)),
        expired_(static_cast<std::size_t>(c.gpus())),
        moves_(c) {
    for (auto& of_gpu : expired_) of_gpu.assign(static_cast<std::size_t>(c.models()), -kNever);
  }

  PaperMoves& moves() noexcept { return moves_; }

  void arrived(const Cluster& c, int r) {
    const Request& q = c.request(r);
    windows_[static_cast<std::size_t>(q.model)].add(c.now_ms(), q);
  }

  // Looks at the keep-alive timers. What expires during the first window or a move counts later.
  void tick(Cluster& c) {
    moves_.advance(c);
    if (moves_.any() || c.now_ms() < options_.window_ms) return;
    if (any_expired(c)) check(c);
  }

 private:
  using Bins = consolidation::Bins;  // places in `models_`

  // Instances that became idle for their keep-alive since they were last asked about.
  bool any_expired(Cluster& c) {
    bool any = false;
    for (int i = 0; i < c.gpus(); ++i) {
      for (const auto& l : c.gpu(i).lanes) {
        double& seen_ms = expired_[static_cast<std::size_t>(i)][static_cast<std::size_t>(l->model)];
        const bool idle = evictable(*l) && c.now_ms() - l->last_used_ms >= options_.keep_alive_ms;
        if (!idle || seen_ms == l->last_used_ms) continue;
        seen_ms = l->last_used_ms;
        any = true;
      }
    }
    return any;
  }

  void check(Cluster& c) {
    collect(c);
    const std::vector<int> gpus = active(c);
    const double share = 1 - options_.reserve;
    const packing::Capacity capacity{share * c.table().sms(c.full_rung()),
                                     share * c.device().memory_bytes};
    const auto bins = consolidation::fewer_gpus(items_, capacity, gpus.size());
    if (bins) begin(c, *bins, gpus);
  }

  // Models that were asked for within the window, or are still at work.
  void collect(Cluster& c) {
    models_.clear();
    items_.clear();
    for (int m = 0; m < c.models(); ++m) {
      const std::optional<Observed> load =
          windows_[static_cast<std::size_t>(m)].means(c.now_ms(), c.expected_output(m));
      if (load) {
        models_.push_back(m);
        items_.push_back(consolidation::demand_of(paper_model(c, m), *load, options_.window_ms));
      } else if (at_work(c, m)) {
        models_.push_back(m);
        items_.push_back(consolidation::least_demand_of(paper_model(c, m)));
      }
    }
  }
  static bool at_work(Cluster& c, int model) {
    for (int i = 0; i < c.gpus(); ++i) {
      const Lane* l = c.gpu(i).lane(model);
      if (l != nullptr && !l->empty()) return true;
    }
    return false;
  }
  static std::vector<int> active(Cluster& c) {
    std::vector<int> gpus;
    for (int i = 0; i < c.gpus(); ++i) {
      if (c.gpu(i).power != Power::parked) gpus.push_back(i);
    }
    return gpus;
  }

  // The bins go to the GPUs to which the least has to be transferred.
  void begin(Cluster& c, const Bins& bins, const std::vector<int>& gpus) {
    const std::vector<int> chosen = consolidation::gpus_of(
        bins, gpus, [&](const std::vector<int>& bin, int gpu) { return transfer_ms(c, bin, gpu); });
    std::vector<int> target(static_cast<std::size_t>(c.models()), kNone);
    std::vector<bool> draining(static_cast<std::size_t>(c.gpus()), false);
    for (const int gpu : gpus) draining[static_cast<std::size_t>(gpu)] = true;
    for (std::size_t b = 0; b < bins.size(); ++b) {
      const int gpu = chosen[b];
      draining[static_cast<std::size_t>(gpu)] = false;
      for (const int i : bins[b]) target[static_cast<std::size_t>(model_at(i))] = gpu;
    }
    moves_.begin(c, std::move(target), std::move(draining));
  }
  int model_at(int i) const { return models_[static_cast<std::size_t>(i)]; }

  // Bytes over bandwidth: weights that the GPU lacks, and caches that are elsewhere.
  double transfer_ms(Cluster& c, const std::vector<int>& bin, int gpu) const {
    double ms = 0;
    for (const int i : bin) {
      const int model = model_at(i);
      const Lane* here = c.gpu(gpu).lane(model);
      if (here == nullptr || here->weights == Weights::absent) ms += c.load_ms(model);
      for (int other = 0; other < c.gpus(); ++other) {
        const Lane* l = other == gpu ? nullptr : c.gpu(other).lane(model);
        if (l == nullptr) continue;
        ms += c.kv_bytes(model, l->context_tokens) / c.device().peer_bytes_per_s * 1000.0;
      }
    }
    return ms;
  }

  PaperConsolidationOptions options_;
  std::vector<LoadWindow> windows_;           // by model
  std::vector<std::vector<double>> expired_;  // last use of what has expired, by GPU and model
  PaperMoves moves_;
  std::vector<int> models_;           // that are packed
  std::vector<packing::Item> items_;  // their demands
};

}  // namespace festina::simulator
