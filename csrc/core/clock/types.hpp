#pragma once
#include <vector>

#include "core/local/types.hpp"

// The values that go into and out of the choice of one GPU's clock (DESIGN 4.2). Times are
// milliseconds of one clock; GPU clocks are indices in the profile.
namespace festina::clock {

using local::kNever;

struct Options {
  bool below_knee = true;  // where only idle power falls; else not
  bool raise = true;       // on demand; else every prompt like those of late must find the clock up
  bool hysteresis = true;  // else down as soon as it pays
  double margin = 0.02;    // share of each objective kept in reserve
  double utilisation = 0.8;  // planned for, at most; below 1
  double dwell_ms = 1000;
  double memory_ms = 30'000;  // of the load's average
};

// Waiting prompts of one model that a clock is planned for; those behind them come later anyway.
inline constexpr std::size_t kAhead = 16;

struct Prompt {
  int tokens = 0;  // to process
  int cached = 0;  // before them
  double ttft_ms = 0;
};

// A prompt that waits, or whose prefill is under way.
struct Waiting {
  int model = 0;
  int id = 0;  // orders those of one deadline
  int tokens = 0;
  int cached = 0;
  double since_ms = 0;  // the objective counts from here
  double objective_ms = 0;
};

// One model's part of a GPU's load: what decodes, and what came of late.
struct ModelLoad {
  int model = 0;            // as the cost knows it
  int running = 0;          // sequences of its next decode step: at most a batch
  double context_mean = 0;  // tokens in the cache of each
  double tbt_ms = kNever;   // tightest of them
  double due_ms = kNever;   // when the first of their tokens must be out
  bool busy = false;        // a step of it runs
  double prompts_per_ms = 0;
  double prompt_tokens = 0;  // of each, on the mean
  Prompt hardest;            // to have in time; none if it has no tokens
};

struct GpuLoad {
  std::vector<ModelLoad> models;
  std::vector<Waiting> waiting;  // in any order

  void clear() {
    models.clear();
    waiting.clear();
  }
};

// The clock for a load and the mean power then; `fits`: everything would be in time.
struct Plan {
  int clock;
  double power_w;
  bool fits;
};

}  // namespace festina::clock
