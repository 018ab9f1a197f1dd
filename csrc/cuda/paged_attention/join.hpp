#pragma once
#include "cuda/paged_attention/state.hpp"

// What the splits of a context left, put together.

namespace festina::paged_attention {

// Joins the splits of one head of one sequence; `row` counts them all. Threads share nothing.
template <typename T>
FESTINA_HOST_DEVICE void join(const Shape& shape, const Arrays<T>& arrays, std::size_t row,
                              std::uint32_t thread, std::uint32_t lanes) {
  const std::uint32_t size = shape.head_dim + 2;
  const float* parts = arrays.scratch + row * shape.splits * size;
  float highest = lowest;
  for (std::uint32_t s = 0; s < shape.splits; ++s) {
    highest = fmaxf(highest, parts[s * size + shape.head_dim]);
  }
  for (std::uint32_t i = thread; i < shape.head_dim; i += lanes) {
    float sum = 0.0F;
    float total = 0.0F;
    for (std::uint32_t s = 0; s < shape.splits; ++s) {
      const float* part = parts + s * size;
      const float weight = exp_negative(part[shape.head_dim] - highest);
      sum = fmaf(weight, part[i], sum);
      total = fmaf(weight, part[shape.head_dim + 1], total);
    }
    cuda::store(arrays.out + row * shape.head_dim + i, total > 0.0F ? sum / total : 0.0F);
  }
}

}  // namespace festina::paged_attention
