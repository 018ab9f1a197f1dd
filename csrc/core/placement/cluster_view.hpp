#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/placement/cluster.hpp"
#include "core/placement/festina.hpp"
#include "core/placement/paper.hpp"
#include "core/placement/records.hpp"

// The scheduler's picture of the cluster, and where it places requests (DESIGN 4.1).
namespace festina::placement {

// Owned and used by one thread. The profiles' tables must outlive it. Slots and models are small
// consecutive numbers; slots are used again after `remove_gpu`. Every argument is checked here:
// anything out of range throws Refusal and changes nothing.
class ClusterView {
 public:
  // One profile per device kind.
  ClusterView(std::vector<std::pair<std::string, ProfileView>> profiles, const Options& options) {
    check_options(options);
    if (profiles.empty()) {
      throw Refusal(Reason::bad_request, "there is no profile", "profiles", "at least one");
    }
    cluster_.options = options;
    for (auto& [kind, profile] : profiles) {
      cluster_.clocks_max = std::max(cluster_.clocks_max, profile.clocks());
      cluster_.rungs_max = std::max(cluster_.rungs_max, profile.rungs());
      kinds_.push_back(std::move(kind));
      profiles_.push_back(profile);
    }
  }

  // A deployment of the profiled model `profile_name`. At least one profile must know that model.
  int add_model(const std::string& name, const std::string& profile_name, const Slo& slo,
                int context_tokens) {
    require_objectives(slo);
    require(context_tokens > 0, "context_tokens", "more than 0");
    Deployment d{name, slo, context_tokens, {}};
    bool known = false;
    for (const ProfileView& profile : profiles_) {
      d.profile_model.push_back(profile.find(profile_name));
      known = known || d.profile_model.back() >= 0;
    }
    if (!known) {
      throw Refusal(Reason::unknown_model, "no profile has the model " + profile_name,
                    "profile_model", "a model of the profiles");
    }
    cluster_.deployments.push_back(std::move(d));
    cluster_.holders.emplace_back();
    cluster_.raises.emplace_back();
    cluster_.guests.open.emplace_back(cluster_.gpus.size(), std::uint8_t{0});
    return static_cast<int>(cluster_.deployments.size()) - 1;
  }

  // A GPU that may host `models`. It takes requests after its first summary. `clocks_mhz` is empty
  // where clocks cannot be set.
  int add_gpu(const std::string& name, const std::string& device_kind, int sms_total,
              const std::vector<int>& clocks_mhz, double memory_bytes,
              const std::vector<int>& models) {
    const auto kind = std::find(kinds_.begin(), kinds_.end(), device_kind);
    if (kind == kinds_.end()) {
      throw Refusal(Reason::bad_request, "there is no profile of " + device_kind, "device_kind",
                    "a kind of the profiles");
    }
    for (const int model : models) require_model(model, "models");
    require(finite(memory_bytes), "memory_bytes", "0 or more");
    const int gpu_class = class_for(static_cast<int>(kind - kinds_.begin()), sms_total, clocks_mhz);
    const int slot = free_slot();
    Gpu& gpu = gpu_at(slot);
    gpu = Gpu{};
    gpu.name = name;
    gpu.present = true;
    gpu.gpu_class = gpu_class;
    for (const int model : models) {
      if (could_hold(gpu_class, model, memory_bytes)) gpu.may_host.push_back(model);
    }
    ++cluster_.classes[static_cast<std::size_t>(gpu.gpu_class)].gpus;
    return slot;
  }

  void remove_gpu(int slot) {
    require_slot(slot, "slot");
    Packer(cluster_, slot).remove();
    Gpu& gpu = gpu_at(slot);
    --cluster_.classes[static_cast<std::size_t>(gpu.gpu_class)].gpus;
    gpu = Gpu{};
  }

  // Takes a summary, and releases the reservations whose tickets it names.
  void update(int slot, Summary summary) {
    require_slot(slot, "slot");
    for (const Resident& r : summary.residents) {
      require_model(r.model, "models.model");
      require(r.running >= 0 && r.waiting >= 0, "models", "counts of 0 or more");
      require(finite(r.context_tokens) && finite(r.waiting_tokens), "models.context_tokens",
              "0 or more");
      require(r.tbt_ms > 0, "models.tbt_ms", "more than 0");
    }
    require(finite(summary.free_in_ms), "free_in_ms", "0 or more");
    require(finite(summary.kv_tokens_free) && finite(summary.kv_tokens_total), "kv_tokens_free",
            "0 or more");
    require(finite(summary.memory_free_bytes), "memory_free_bytes", "0 or more");
    Gpu& gpu = gpu_at(slot);
    auto& held = gpu.reservations;
    for (const std::uint64_t ticket : summary.tickets) {
      std::erase_if(held, [ticket](const Reservation& r) { return r.ticket == ticket; });
    }
    gpu.summary = std::move(summary);
    gpu.seen = true;
    Packer(cluster_, slot).pack();
  }

  // Where the request should run. Throws Refusal.
  Placement place(const Request& request, std::span<const int> exclude) {
    require_model(request.model, "model");
    require(request.input_tokens > 0, "input_tokens", "more than 0");
    require(request.output_tokens > 0, "max_tokens", "more than 0");
    require_objectives(request.slo);
    for (const int slot : exclude) require_slot(slot, "exclude");
    const auto& deployment = cluster_.deployments[static_cast<std::size_t>(request.model)];
    if (request.input_tokens > deployment.context_tokens - request.output_tokens) {
      throw Refusal(Reason::context_limit, "prompt and output are longer than the context",
                    "max_tokens",
                    "at most " + std::to_string(deployment.context_tokens) + " tokens in all");
    }
    if (cluster_.options.policy == Policy::paper) {
      return PaperSearch(cluster_, request, exclude, scratch_).place();
    }
    return FestinaSearch(cluster_, request, exclude, scratch_).place();
  }

  // Counts a placement against its GPU until a summary names the ticket or it expires.
  void reserve(int slot, std::uint64_t ticket, int model, int input_tokens, int output_tokens,
               double now_ms) {
    require_slot(slot, "slot");
    require_model(model, "model");
    require(input_tokens > 0, "input_tokens", "more than 0");
    require(output_tokens >= 0, "max_tokens", "0 or more");
    require(std::isfinite(now_ms), "now", "a time");
    Gpu& gpu = gpu_at(slot);
    require(gpu.seen, "slot", "a GPU that has sent a summary");
    const double expires_ms = now_ms + cluster_.options.reservation_ms;
    gpu.reservations.push_back({ticket, model, input_tokens, output_tokens, expires_ms});
    expiries_.emplace_back(expires_ms, slot);
    Packer(cluster_, slot).pack();
  }

  // Forgets the reservations that are due at `now_ms`; returns how many.
  int expire(double now_ms) {
    int count = 0;
    while (!expiries_.empty() && expiries_.front().first <= now_ms) {
      const int slot = expiries_.front().second;
      expiries_.pop_front();
      const auto due = [now_ms](const Reservation& r) { return r.expires_ms <= now_ms; };
      const auto gone = static_cast<int>(std::erase_if(gpu_at(slot).reservations, due));
      if (gone == 0) continue;
      count += gone;
      Packer(cluster_, slot).pack();
    }
    return count;
  }

  // Reservations that still count against the GPU.
  int reserved(int slot) const {
    require_slot(slot, "slot");
    return static_cast<int>(cluster_.gpus[static_cast<std::size_t>(slot)].reservations.size());
  }
  int gpus() const {
    return static_cast<int>(std::count_if(cluster_.gpus.begin(), cluster_.gpus.end(),
                                          [](const Gpu& gpu) { return gpu.present; }));
  }

 private:
  static bool finite(double value) { return value >= 0 && std::isfinite(value); }

  static void require(bool good, const char* field, const char* expected) {
    if (!good) throw Refusal(Reason::bad_request, "is out of range", field, expected);
  }
  static void require_objectives(const Slo& slo) {
    require(slo.ttft_ms > 0 && std::isfinite(slo.ttft_ms), "slo.ttft_ms", "more than 0");
    require(slo.tbt_ms > 0 && std::isfinite(slo.tbt_ms), "slo.tbt_ms", "more than 0");
  }
  static void check_options(const Options& o) {
    require(o.margin >= 0 && o.margin < 1, "margin", "0 or more, below 1");
    require(o.tie_share >= 0 && std::isfinite(o.tie_share), "tie_share", "0 or more");
    require(o.queue_max > 0, "queue_max", "more than 0");
    require(o.reservation_ms > 0 && std::isfinite(o.reservation_ms), "reservation_s",
            "more than 0");
    require(o.retry_after_ms > 0, "retry_after_ms", "more than 0");
    require(o.wake_stay_ms >= 0 && std::isfinite(o.wake_stay_ms), "wake_stay_s", "0 or more");
  }
  void require_slot(int slot, const char* field) const {
    const bool known = slot >= 0 && static_cast<std::size_t>(slot) < cluster_.gpus.size() &&
                       cluster_.gpus[static_cast<std::size_t>(slot)].present;
    require(known, field, "a slot in use");
  }
  void require_model(int model, const char* field) const {
    if (model < 0 || static_cast<std::size_t>(model) >= cluster_.deployments.size()) {
      throw Refusal(Reason::unknown_model, "no deployment has this number", field,
                    "a number from add_model");
    }
  }

  Gpu& gpu_at(int slot) { return cluster_.gpus[static_cast<std::size_t>(slot)]; }

  int free_slot() {
    for (std::size_t slot = 0; slot < cluster_.gpus.size(); ++slot) {
      if (!cluster_.gpus[slot].present) return static_cast<int>(slot);
    }
    cluster_.gpus.emplace_back();
    cluster_.guests.rows.grow();
    cluster_.guests.free_bytes_left.emplace_back();
    for (auto& open : cluster_.guests.open) open.emplace_back(std::uint8_t{0});
    return static_cast<int>(cluster_.gpus.size()) - 1;
  }

  bool could_hold(int gpu_class, int model, double memory_bytes) const {
    const GpuClass& of = cluster_.classes[static_cast<std::size_t>(gpu_class)];
    const int index = cluster_.profile_model(model, of);
    return index >= 0 && static_cast<double>(of.profile.model(index).weight_bytes) <= memory_bytes;
  }

  // GPUs of one class share their quotes.
  int class_for(int kind, int sms_total, const std::vector<int>& clocks_mhz) {
    const ProfileView& profile = profiles_[static_cast<std::size_t>(kind)];
    const int rung = profile.rung_within(sms_total);
    require(rung >= 0, "sms_total", "at least the SMs of the profile's smallest rung");
    GpuClass made{profile, kind, rung, 0, profile.clocks() - 1, clocks_mhz.empty()};
    if (!clocks_mhz.empty()) {
      const auto [low, high] = std::minmax_element(clocks_mhz.begin(), clocks_mhz.end());
      made.clock_top = std::max(0, profile.clock_within(*high));
      made.clock_least = std::min(made.clock_top, profile.clock_within(*low - 1) + 1);
    }
    for (std::size_t i = 0; i < cluster_.classes.size(); ++i) {
      const GpuClass& c = cluster_.classes[i];
      if (c.kind == kind && c.full_rung == rung && c.clock_least == made.clock_least &&
          c.clock_top == made.clock_top && c.fixed_clock == made.fixed_clock) {
        return static_cast<int>(i);
      }
    }
    cluster_.classes.push_back(made);
    return static_cast<int>(cluster_.classes.size()) - 1;
  }

  std::vector<std::string> kinds_;
  std::vector<ProfileView> profiles_;
  Cluster cluster_;
  Scratch scratch_;
  std::deque<std::pair<double, int>> expiries_;  // all reservations live equally long
};

}  // namespace festina::placement
