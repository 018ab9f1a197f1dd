#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/paged_attention/block.hpp"
#include "cuda/paged_attention/join.hpp"

// Paged attention as host code: the bodies of the kernels, thread after thread. For tests.

namespace festina::paged_attention {

// Raises std::invalid_argument naming a size that no kernel has.
inline void check(const Shape& shape) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  require(shape.head_dim >= 8 && shape.head_dim % 8 == 0 && shape.head_dim <= head_dim_max,
          "head_dim: expected a multiple of 8 up to 256");
  require(shape.kv_heads > 0 && shape.group > 0, "heads: expected at least one");
  require(shape.splits > 0, "splits: expected at least one");
  require(shape.block_stride % 8 == 0 && shape.q_stride % 8 == 0,
          "strides: expected multiples of 8 elements");
}

template <typename T, std::uint32_t Heads>
void run_block(const Shape& shape, const Arrays<T>& arrays, const Place& place) {
  Shared<Heads> shared{};
  const Block<T, Heads> block(shape, arrays, place, shared);
  std::vector<Thread<Heads>> own(threads);
  const auto all = [&](auto&& phase) {
    for (std::uint32_t thread = 0; thread < threads; ++thread) phase(thread, own[thread]);
  };
  all([&](auto thread, auto& mine) { block.start(thread, mine); });
  for (std::uint32_t base = block.begin(); base < block.end(); base += tile) {
    all([&](auto thread, auto& mine) { block.score(thread, mine, base); });
    all([&](auto thread, auto&) { block.fold_highest(thread); });
    all([&](auto thread, auto& mine) { block.weigh(thread, mine); });
    all([&](auto thread, auto& mine) { block.gather(thread, mine, base); });
  }
  all([&](auto thread, auto& mine) { block.finish(thread, mine); });
  for (std::uint32_t h = 0; h < block.heads(); ++h) {
    all([&](auto thread, auto& mine) { block.spread(thread, mine, h); });
    all([&](auto thread, auto& mine) { block.collect(thread, mine, h); });
  }
}

template <typename T, std::uint32_t Heads>
void run_blocks(const Shape& shape, const Arrays<T>& arrays) {
  for (std::uint32_t sequence = 0; sequence < shape.sequences; ++sequence) {
    for (std::uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      for (std::uint32_t share = 0; share < shape.shares(); ++share) {
        for (std::uint32_t split = 0; split < shape.splits; ++split) {
          run_block<T, Heads>(shape, arrays, {split, kv_head, share, sequence});
        }
      }
    }
  }
}

template <typename T>
void run_host(const Shape& shape, const Arrays<T>& arrays) {
  check(shape);
  switch (shape.heads_each()) {
    case 1:
      run_blocks<T, 1>(shape, arrays);
      break;
    case 2:
      run_blocks<T, 2>(shape, arrays);
      break;
    case 4:
      run_blocks<T, 4>(shape, arrays);
      break;
    default:
      run_blocks<T, 8>(shape, arrays);
      break;
  }
  if (shape.splits == 1) return;
  for (std::size_t row = 0; row < std::size_t{shape.sequences} * shape.heads(); ++row) {
    for (std::uint32_t thread = 0; thread < threads; ++thread) {
      join(shape, arrays, row, thread, threads);
    }
  }
}

}  // namespace festina::paged_attention
