#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/local/step_work.hpp"
#include "core/simulator/types.hpp"

namespace festina::simulator {

enum class Power : std::uint8_t { awake, parked, waking };
enum class Weights : std::uint8_t { absent, loading, ready };

// One model on one GPU: its weights, its prompts that wait, and its requests that decode.
struct Lane {
  int model = 0;
  Weights weights = Weights::absent;
  bool busy = false;          // a step of it runs
  bool prefilling = false;    // one with prompts
  bool decoding = false;      // one with decodes; beside one with prompts only
  std::deque<int> waiting;    // requests with prefill to do, in order of arrival
  std::vector<int> running;   // requests that decode
  double context_tokens = 0;  // of `running`, in the KV cache
  int incoming = 0;           // requests whose caches are on their way here
  double due_ms = kNever;     // earliest next_due_ms() of `running`
  double tbt_ms = kNever;     // tightest objective of `running`
  double last_used_ms = 0;
  double last_step_ms = 0;    // when its last step began
  double reserved_bytes = 0;  // KV cache that its admitted requests are expected to fill

  bool empty() const noexcept { return waiting.empty() && running.empty() && incoming == 0; }
};

// A part of a prompt in a step.
struct Chunk {
  int request;
  int tokens;
};

// What runs on a partition of a GPU. Its decodes are the first `decodes` of the lane's `running`.
struct Step {
  Lane* lane = nullptr;
  int rung = 0;
  int decodes = 0;
  std::vector<Chunk> chunks;
  local::StepWork work;  // when it started: the lane goes on changing
  double noise = 1;
  double predicted_ms = 0;  // by the profile, corrected
  double start_ms = 0;
  double alone_ms = 0;   // if nothing else ran
  double dynamic_w = 0;  // while nothing else runs
  double bytes_per_s = 0;
  double left = 1;  // share that is still to be done
  double energy_j = 0;
  int clock_at_start = 0;
  bool undisturbed = true;  // nothing ran beside it

  int tokens() const noexcept {
    int sum = 0;
    for (const Chunk& c : chunks) sum += c.tokens;
    return sum;
  }
};

struct Gpu {
  int index = 0;
  Power power = Power::awake;
  int clock = 0;  // index in the profile
  int clock_target = 0;
  double clock_asked_ms = -kNever;
  std::uint32_t clock_version = 0;
  std::uint32_t step_version = 0;
  std::uint32_t timer_version = 0;
  int loads = 0;  // under way
  int moves = 0;  // copies of KV caches to it under way
  double link_free_ms = 0;
  double weight_bytes = 0;
  double kv_bytes = 0;        // in use
  double reserved_bytes = 0;  // KV cache that admitted requests are expected to fill
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<std::int16_t> lane_of;  // by model; kNone
  std::vector<Step> steps;            // running side by side
  double stretch = 1;                 // by which they slow each other down
  double settled_ms = 0;
  double power_w = 0;
  EnergyKind kind = EnergyKind::idle;
  double overhead_j = 0;  // while no step ran
  double busy_ms = 0;
  int requests = 0;      // waiting, running or on their way here
  bool touched = false;  // the policy has yet to look at it

  Lane* lane(int model) const noexcept {
    const int at = lane_of[static_cast<std::size_t>(model)];
    return at < 0 ? nullptr : lanes[static_cast<std::size_t>(at)].get();
  }
  bool awake() const noexcept { return power == Power::awake; }
  bool switching() const noexcept { return clock != clock_target; }
};

}  // namespace festina::simulator
