#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/bad_input.hpp"
#include "core/profile_table/cell.hpp"

// What a simulation is made of: the plain values that its parts hand to each other.
namespace festina::simulator {

inline constexpr double kNever = std::numeric_limits<double>::infinity();
inline constexpr int kNone = -1;

// Where a request stands.
enum class Stage : std::uint8_t {
  unsent,
  queued,
  waiting,
  running,
  moving,
  done,
  failed,
  rejected
};

struct Request {
  // As the workload has it.
  double arrival_ms = 0;  // of a follower: the pause after its predecessor ended
  int model = 0;
  int input_tokens = 1;
  int cached_tokens = 0;  // of the prompt: a prefix that needs no prefill
  int output_tokens = 1;
  int follows = kNone;
  float ttft_ms = 0;
  float tbt_ms = 0;
  // How far it came.
  Stage stage = Stage::unsent;
  bool cold = false;  // it waited for weights or for a GPU to wake
  int gpu = kNone;
  int done_tokens = 0;  // of prompt and output, in the KV cache
  int generated = 0;    // tokens that the client has
  int gaps_over = 0;    // longer than tbt_ms
  double sent_ms = 0;
  double first_ms = 0;
  double last_ms = 0;  // when the client got the last token
  double gap_max_ms = 0;
  double energy_j = 0;  // of the steps it was part of

  // Tokens to put into the KV cache before the next token comes out: the prompt, and after a
  // recomputation what was generated too.
  int prompt_tokens() const noexcept { return input_tokens + generated; }
  int pending_tokens() const noexcept { return prompt_tokens() - done_tokens; }
  // Of `prompt_tokens`: in the KV cache, or the prefix that a cache holds before the first step.
  int cached() const noexcept {
    return done_tokens > 0 || generated > 0 ? done_tokens : cached_tokens;
  }
  // What a prefill still has to process.
  int uncached() const noexcept { return std::max(1, prompt_tokens() - cached()); }
  double first_due_ms() const noexcept { return sent_ms + static_cast<double>(ttft_ms); }
  double next_due_ms() const noexcept {
    return generated == 0 ? first_due_ms() : last_ms + static_cast<double>(tbt_ms);
  }
};

// A model under a name, its bias the factors by which the simulated GPUs differ from the profile.
struct Deployment {
  std::string name;
  int profile;  // index of the model in both tables
  std::array<double, kPhases> time_bias;
  std::array<double, kPhases> power_bias;
};

// Constants of the GPUs that the profile does not hold.
struct Device {
  double memory_bytes;
  double parked_w;
  double power_cap_w;
  double wake_ms;
  double clock_switch_ms;
  double load_bytes_per_s;  // pinned host memory to GPU
  double load_fixed_ms;
  double storage_bytes_per_s;  // disk to GPU, for weights that host memory does not hold
  double peer_bytes_per_s;     // GPU to GPU
  double move_fixed_ms;        // pause of a request that migrates, beside its copy
  double bandwidth_bytes_per_s;
  double byte_j;  // energy of a byte that a load or a copy writes
};

struct Setup {
  int gpus = 1;
  std::uint64_t seed = 0;
  double noise = 0;              // lognormal sigma of a step's duration
  double host_memory_bytes = 0;  // of the whole cluster, for weights
  int default_clock_mhz = 0;     // where nobody sets a clock; 0: the highest
  int batch_max = 256;
  double duration_ms = 0;     // of the sending window
  double drain_ms = 0;        // after it; what is not done by then has failed
  double bucket_ms = 10'000;  // of the timeline
  double window_from_ms = 0;  // of the recorded spans; empty: none
  double window_to_ms = 0;
};

enum class EnergyKind : std::uint8_t { active, idle, parked, switching, loading, migrating };
inline constexpr std::size_t kEnergyKinds = 6;

// A thing a GPU did, for the trace of a window.
struct Span {
  int gpu;
  int model;
  const char* name;
  double start_ms;
  double end_ms;
  int clock_mhz;
  int sms;
  int batch;
  int tokens;
};

}  // namespace festina::simulator
