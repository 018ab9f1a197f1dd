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
  int batch_max = std::numeric_limits<int>::max();  // sequences in a step
  int chunk_tokens = 2048;
  int chunk_min_tokens = 64;  // a shorter chunk is not worth a step, unless it ends the prompt
  int chunk_unit_tokens = 8;  // chunks are sized to within so many
  // Prompts of a model go by deadline instead of arrival, each after those before it; nobody is let
  // in before one that is late and waits for memory, and while any waits for it decodes take no
  // time that they do not need.
  bool by_deadline = false;
  bool least_chunk = false;  // a prompt at risk gets the least chunk, whatever it does to decodes
  bool turns = false;        // models take turns as long as nobody becomes late by it
};

// A sequence whose next step is a decode.
struct Decode {
  int id;
  double cached_tokens;
  double last_ms;  // when its last token came out
  double tbt_ms;
  double pace;    // 0 as fast as possible, 1 uses all the slack
  bool outgrown;  // longer than was predicted: the sooner it ends, the sooner memory is free
};

// Decodes of one model that share a step.
struct Batch {
  int decodes;
  double context_mean;       // tokens in the cache of each
  double due_ms;             // when the first of their tokens must be out, reserve kept
  double paced_ms = kNever;  // when it should be out, if before that
};

// A prompt with prefill to do.
struct Prompt {
  int id;
  int pending_tokens;
  int cached_tokens;
  double since_ms;      // the objective counts from here
  double objective_ms;  // to its first token, or, recomputed, to its next
  bool admitted;        // it holds its memory already
  double memory;        // KV cache that it is expected to need, in units of the lane's
};

// What one model could do next.
struct Lane {
  int model;                        // as the cost knows it
  std::span<const Batch> batches;   // the one to run first, first
  std::span<const Prompt> prompts;  // in order of arrival; those far back may be left out
  double memory_free = 0;           // for prompts that are not admitted yet
  bool alone = false;               // none is admitted: one may go ahead whatever it needs
  double last_step_ms = -kNever;    // when its last step began
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
  int batch = 0;    // of the lane, whose
  int decodes = 0;  // first sequences run
  std::vector<Chunk> chunks;
  double wait_until_ms = kNever;
};

}  // namespace festina::local
