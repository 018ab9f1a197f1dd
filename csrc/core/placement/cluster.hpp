#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/placement/rows.hpp"
#include "core/placement/types.hpp"
#include "core/profile_table/view.hpp"

// What the scheduler knows of the cluster, as placement needs it.
namespace festina::placement {

inline constexpr float kStretchMax = 10.0F;  // decode never takes more than 90 % from prefill

// GPUs of one kind with the same SMs that can be set to the same clocks.
struct GpuClass {
  ProfileView profile;
  int kind;         // index of the profile
  int full_rung;    // the whole GPU
  int clock_least;  // indices of profile clocks
  int clock_top;
  bool fixed_clock;  // clocks cannot be set
  int gpus = 0;

  int clocks() const noexcept { return profile.clocks(); }
  // Highest clock that a GPU now at `clock` may be raised to.
  int top_from(int clock) const noexcept {
    return fixed_clock ? clock : std::max(clock, clock_top);
  }
};

// A deployment: a model under a name, with its objectives.
struct Deployment {
  std::string name;
  Slo slo;
  int context_tokens;
  std::vector<int> profile_model;  // index in the profile of each kind; -1: that kind has none
};

// A placement whose request has not shown up in a summary yet.
struct Reservation {
  std::uint64_t ticket;
  int model;
  int input_tokens;
  int output_tokens;
  double expires_ms;
};

// A resident with the reservations counted in: what the GPU will hold once they have arrived.
struct Load {
  int model;
  bool loading;        // the weights are on their way, or will be for a reservation
  int sequences;       // running, waiting and reserved
  double tokens;       // of their contexts
  float tbt_ms;        // tightest objective
  float round_ms = 0;  // one step at the base clock
  float round_j = 0;
};

// Where a GPU's entry for a model is.
struct EntryRef {
  int model;
  std::size_t row;
};

// Coefficients of a row at a raised clock.
struct Raise {
  float round_ms;
  float round_ms_per_token;
  float step_j;
  float step_j_per_token;
};

struct Gpu {
  std::string name;
  bool present = false;  // the slot is in use
  bool seen = false;     // a summary has come
  int gpu_class = 0;
  std::vector<int> may_host;
  Summary summary;
  std::vector<Reservation> reservations;
  std::vector<EntryRef> entries;

  bool parked() const noexcept { return summary.parked && reservations.empty(); }
  bool hosts(int model) const noexcept {
    return std::find(may_host.begin(), may_host.end(), model) != may_host.end();
  }
  const EntryRef* entry(int model) const noexcept {
    for (const EntryRef& e : entries) {
      if (e.model == model) return &e;
    }
    return nullptr;
  }
};

// What a GPU offers to models that it does not hold: one row per slot.
struct Guests {
  Rows rows;                           // `round_ms` without the guest; energies 0
  std::vector<float> free_bytes_left;  // after weights that reservations have claimed; < 0: never
  std::vector<std::vector<std::uint8_t>> open;  // [model][slot]: may host it and does not hold it
};

struct Cluster {
  Options options;
  std::vector<GpuClass> classes;
  std::vector<Deployment> deployments;
  std::vector<Gpu> gpus;                   // by slot
  std::vector<Rows> holders;               // by model
  std::vector<std::vector<Raise>> raises;  // by model: [row * clocks_max + clock]
  Guests guests;
  int clocks_max = 1;  // over all profiles
  int rungs_max = 1;

  int profile_model(int model, const GpuClass& of) const noexcept {
    return deployments[static_cast<std::size_t>(model)]
        .profile_model[static_cast<std::size_t>(of.kind)];
  }
  const GpuClass& class_of(const Gpu& gpu) const noexcept {
    return classes[static_cast<std::size_t>(gpu.gpu_class)];
  }
  // Quotes of one class lie together: [busy at clock c][idle, now at clock c][parked] for
  // `festina`, [rung][clock][too few SMs] for `paper`.
  int quotes_per_class() const noexcept {
    return (options.policy == Policy::festina ? 2 : rungs_max) * clocks_max + 1;
  }
  float usable() const noexcept { return 1.0F - options.margin; }
  // Latency with the profile's own error on top.
  float upper_ms(const Estimate& e) const noexcept {
    return options.policy == Policy::festina && options.spread_margin
               ? e.latency_ms * (1.0F + e.spread)
               : e.latency_ms;
  }
};

}  // namespace festina::placement
