#pragma once
#include "cuda/numbers.hpp"
#include "cuda/paged_attention/types.hpp"

// What a thread block of paged attention keeps between its phases.

namespace festina::paged_attention {

using cuda::exp_negative;

constexpr float lowest = -INFINITY;

// State of a thread, in registers.
template <std::uint32_t Heads>
struct Thread {
  float sums[Heads][8];  // weighted values: components 8·column … of its slice
  float highest[Heads];  // score so far; the same in all threads
  float rescale[Heads];  // of what was summed before this tile
  float total;           // of the weights of head `thread`
};

// Memory that the threads of a block share.
template <std::uint32_t Heads>
struct Shared {
  alignas(16) float q[Heads][head_dim_max];
  float scores[Heads][tile];  // then weights
  float parts[Heads][threads];
  float folded[Heads][folds];
  float spread[threads * 8];
  float totals[Heads];
};

}  // namespace festina::paged_attention
