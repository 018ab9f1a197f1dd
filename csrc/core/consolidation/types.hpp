#pragma once
#include <vector>

#include "core/clock/types.hpp"

// The values that go into and out of the choice of which GPUs are needed at all (DESIGN 4.3).
// Times are milliseconds, GPUs and models small consecutive numbers.
namespace festina::consolidation {

using clock::kNever;

inline constexpr int kNone = -1;

struct Options {
  bool consolidation = true;    // else only GPUs that nobody uses are parked
  double horizon_ms = 300'000;  // how long the load is expected to stay as it is, at most
  double least_w = 25;          // a smaller saving is not worth the risk
  double rare = 0.2;            // arrivals over the horizon below which weights may go
  int targets = 1;              // GPUs that are tried for each model: where it is, or fits best
  int examined = 1 << 30;       // GPUs that are looked at: those with the least to move
  int drains = 1;               // GPUs that are emptied at once, at most
  bool risk = false;            // charge what it costs if the load does not stay as it is
  bool spread = false;          // a GPU is woken only if no other one can take over a model
  double late_j = 100;          // what a late request is taken to cost
};

// One model on one GPU.
struct Resident {
  int model;
  clock::ModelLoad load;  // `load.model` is the place in the profile of the GPU it is planned on
  std::vector<clock::Waiting> waiting;
  bool held = true;         // its weights are there
  bool idle = true;         // no request is there
  double weight_bytes = 0;  // what it takes to load it elsewhere
  double cache_bytes = 0;   // of its requests
};

// One GPU. What it holds includes what is on its way.
struct GpuState {
  bool awake = false;
  bool open = false;  // awake, and not being emptied
  bool parked = false;
  bool settled = false;  // it may change its state again
  bool loading = false;
  int requests = 0;
  int clock = 0;  // in its profile
  double free_bytes = 0;
  std::vector<Resident> residents;
};

struct Move {
  int model;
  int to;
};

// A GPU to be emptied and parked, and why.
struct Drain {
  int gpu = kNone;
  double saved_w = 0;
  double valley_ms = 0;
  double wake_j = 0;
  double moves_j = 0;
  double risk_j = 0;
  double gain_j = 0;
  std::vector<Move> moves;
};

// A parked GPU to be woken, for the one that has too much to do.
struct Wake {
  int gpu = kNone;
  int overloaded = kNone;
};

}  // namespace festina::consolidation
