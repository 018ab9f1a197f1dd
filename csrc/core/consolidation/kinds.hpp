#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/bad_input.hpp"
#include "core/consolidation/paper.hpp"
#include "core/consolidation/types.hpp"
#include "core/local/step_work.hpp"
#include "core/profile_table/view.hpp"

// A cluster that serves, as its summaries tell of it: GPUs of several kinds, by their profiles.
namespace festina::consolidation {

// One GPU; `sms_total`, the clocks and `clock_mhz` are of the device.
struct GpuRow {
  std::int32_t kind;
  std::int32_t sms_total;
  std::int32_t clock_mhz;
  std::int32_t clock_least_mhz;  // that it can be set to
  std::int32_t clock_most_mhz;
  std::int32_t requests;
  double free_bytes;
  std::uint8_t awake, open, parked, settled, loading;
};

// One model on one GPU; rows are in order of GPU.
struct ResidentRow {
  std::int32_t gpu;
  std::int32_t model;
  std::int32_t running;
  std::int32_t hardest_tokens;
  double context_mean;
  double tbt_ms;
  double prompts_per_ms;
  double prompt_tokens;
  double ttft_ms;
  std::uint8_t idle;
};

// A deployment, by name of the profile that it runs, and its memory on every GPU.
struct ModelKind {
  std::string profile;
  double kv_tokens;
};

// Steps of a GPU on all its SMs, at the clocks that it can be set to: a `Cost` of `clock::Planner`.
struct GpuCost {
  const ProfileView* table;
  int rung;
  int lowest;  // of the profile's clocks
  int count;
  double clock_switch_ms;

  int clocks() const { return count; }
  double idle_w(int clock) const { return table->idle_w(lowest + clock); }
  double switch_ms() const { return clock_switch_ms; }
  local::Price step(int model, const local::StepWork& w, int clock) const {
    return local::price(*table, model, w, rung, lowest + clock);
  }
  double spread(int model, const local::StepWork& w, int clock) const {
    return step(model, w, clock).spread;
  }
};

// A `World` of `Festina`. The tables must outlive it.
class Kinds {
 public:
  Kinds(std::vector<ProfileView> tables, std::vector<ModelKind> models, double byte_j,
        double switch_ms)
      : tables_(std::move(tables)),
        models_(std::move(models)),
        byte_j_(byte_j),
        switch_ms_(switch_ms) {
    if (tables_.empty()) throw BadInput("profiles", "at least one");
    for (const ProfileView& table : tables_) {
      for (const ModelKind& model : models_) profile_.push_back(table.find(model.profile));
    }
  }

  // The GPUs of the calls that follow.
  void look_at(std::span<const GpuRow> gpus) {
    gpus_ = gpus;
    costs_.clear();
    for (const GpuRow& g : gpus) {
      if (g.kind < 0 || static_cast<std::size_t>(g.kind) >= tables_.size()) {
        throw BadInput("gpus.kind", "the number of a profile");
      }
      const ProfileView& table = tables_[static_cast<std::size_t>(g.kind)];
      const int rung = table.rung_within(g.sms_total);
      if (rung < 0) throw BadInput("gpus.sms_total", "at least the profile's smallest rung");
      const int top = std::max(0, table.clock_within(g.clock_most_mhz));
      const int lowest = std::min(top, table.clock_within(g.clock_least_mhz - 1) + 1);
      costs_.push_back({&table, rung, lowest, top - lowest + 1, switch_ms_});
    }
  }

  int models() const { return static_cast<int>(models_.size()); }
  const GpuCost& cost(int gpu) const { return costs_[static_cast<std::size_t>(gpu)]; }
  int profile(int gpu, int model) const {
    const auto kind = static_cast<std::size_t>(row(gpu).kind);
    return profile_[kind * models_.size() + static_cast<std::size_t>(model)];
  }
  double parked_w(int gpu) const { return cost(gpu).table->header().parked_w; }
  double wake_ms(int gpu) const {
    const ProfileView& table = *cost(gpu).table;
    return table.models() > 0 ? table.model(0).wake_ms : 0;
  }
  double wake_j(int gpu) const {
    const GpuCost& c = cost(gpu);
    return c.idle_w(c.clocks() - 1) * wake_ms(gpu) / 1000.0;
  }
  double byte_j(int /*gpu*/) const { return byte_j_; }

  // Memory that the model takes on a GPU where it can run: weights and the pool of its KV cache.
  double resident_bytes(int gpu, int model) const {
    const layout::Model& m = layout_of(gpu, model);
    return static_cast<double>(m.weight_bytes) +
           models_[static_cast<std::size_t>(model)].kv_tokens *
               static_cast<double>(m.kv_bytes_per_token);
  }
  double kv_bytes(int gpu, int model, double tokens) const {
    return static_cast<double>(layout_of(gpu, model).kv_bytes_per_token) * tokens;
  }
  double load_ms(int gpu, int model) const { return layout_of(gpu, model).load_ms; }

  PaperModel paper_model(int gpu, int model) const {
    const GpuCost& c = cost(gpu);
    return {*c.table, profile(gpu, model),        c.rung, c.lowest + c.count - 1, 1.0,
            1.0,      resident_bytes(gpu, model), 0.0};
  }

  // What the rows say, as the rules take it.
  std::vector<GpuState> states(std::span<const ResidentRow> rows) const {
    std::vector<GpuState> states;
    for (std::size_t i = 0; i < gpus_.size(); ++i) {
      const GpuRow& g = gpus_[i];
      const GpuCost& c = costs_[i];
      const int clock = c.table->clock_within(g.clock_mhz) - c.lowest;
      states.push_back({g.awake != 0,
                        g.open != 0,
                        g.parked != 0,
                        g.settled != 0,
                        g.loading != 0,
                        g.requests,
                        std::clamp(clock, 0, c.count - 1),
                        g.free_bytes,
                        {}});
    }
    for (const ResidentRow& r : rows) {
      check(r);
      if (profile(r.gpu, r.model) < 0) continue;
      states[static_cast<std::size_t>(r.gpu)].residents.push_back(resident(r));
    }
    return states;
  }

 private:
  const GpuRow& row(int gpu) const { return gpus_[static_cast<std::size_t>(gpu)]; }
  const layout::Model& layout_of(int gpu, int model) const {
    return cost(gpu).table->model(profile(gpu, model));
  }

  void check(const ResidentRow& r) const {
    if (r.gpu < 0 || static_cast<std::size_t>(r.gpu) >= gpus_.size()) {
      throw BadInput("residents.gpu", "the number of a GPU");
    }
    if (r.model < 0 || r.model >= models()) {
      throw BadInput("residents.model", "the number of a deployment");
    }
    const bool good = r.running >= 0 && r.context_mean >= 0 && r.prompts_per_ms >= 0 &&
                      r.prompt_tokens >= 0 && r.hardest_tokens >= 0;
    if (!good) throw BadInput("residents", "figures of 0 or more");
    if (!(r.tbt_ms > 0 && r.ttft_ms > 0)) throw BadInput("residents.tbt_ms", "more than 0");
  }

  Resident resident(const ResidentRow& r) const {
    Resident made;
    made.model = r.model;
    made.load.running = r.running;
    made.load.context_mean = r.context_mean;
    made.load.tbt_ms = r.tbt_ms;
    made.load.prompts_per_ms = r.prompts_per_ms;
    made.load.prompt_tokens = r.prompt_tokens;
    made.load.hardest = {r.hardest_tokens, 0, r.ttft_ms};
    made.idle = r.idle != 0;
    made.weight_bytes = resident_bytes(r.gpu, r.model);
    made.cache_bytes = kv_bytes(r.gpu, r.model, r.running * r.context_mean);
    return made;
  }

  std::vector<ProfileView> tables_;
  std::vector<ModelKind> models_;
  double byte_j_;
  double switch_ms_;
  std::vector<int> profile_;  // [kind][deployment]
  std::span<const GpuRow> gpus_;
  std::vector<GpuCost> costs_;  // by GPU
};

}  // namespace festina::consolidation
