#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

// The values that go into and out of the choice of one GPU's next step (DESIGN 4.2). Times are
// milliseconds of one clock.
namespace festina::local {

inline constexpr double kNever = std::numeric_limits<double>::infinity();
inline constexpr int kNone = -1;

struct Options {
  bool pace = true;      // else decodes run as soon as they can
  bool mix = true;       // prompts take their model's decodes along
  double margin = 0.02;  // share of each objective kept in reserve
  double sigmas = 3;     // of the profile's error, added to every predicted step
  int chunk_tokens = 2048;
  int chunk_min_tokens = 64;  // a shorter chunk is not worth a step, unless it ends the prompt
};

// A prompt with prefill to do.
struct Prompt {
  int id;
  int pending_tokens;
  int cached_tokens;
  double since_ms;      // the objective counts from here
  double objective_ms;  // to its first token, or, recomputed, to its next
  bool admitted;        // it holds its memory already
  double memory_bytes;  // KV cache that it is expected to need
};

// What one model could do next.
struct Lane {
  int model;                        // as the cost knows it
  int decodes;                      // sequences that decode, at most a batch
  double context_mean;              // tokens in the cache of each
  double due_ms;                    // when the first of their tokens must be out
  double tbt_ms;                    // their tightest objective
  std::span<const Prompt> prompts;  // in order of arrival; those far back may be left out
};

// A part of a prompt in a step.
struct Chunk {
  int id;
  int tokens;
  int cached_tokens;  // of the prompt, before
};

// What to do now. `lane` < 0: nothing, until `wait_until_ms`.
struct Choice {
  int lane = kNone;
  int decodes = 0;
  std::vector<Chunk> chunks;
  double wait_until_ms = kNever;
};

}  // namespace festina::local
