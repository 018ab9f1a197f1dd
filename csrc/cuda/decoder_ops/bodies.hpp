#pragma once
#include "cuda/decoder_ops/types.hpp"
#include "cuda/numbers.hpp"

// The kernels' bodies: phases of one thread of `threads` that work on a row, between which all wait
// for each other. Tests call them for all threads in turn, as host code.

namespace festina::decoder_ops {

using cuda::exp_negative;
using cuda::load8;
using cuda::store;
using cuda::to_float;

struct RowSums {
  float parts[threads];
  float folded[folds];
};

struct HeadSums {
  float parts[heads_max * folds];
};

FESTINA_HOST_DEVICE inline float inverse_root(float squares, std::uint32_t count, float eps) {
  return 1.0F / sqrtf(squares / static_cast<float>(count) + eps);
}

// Phase 1 of a norm: the sum, as it is stored, and this thread's part of its squares.
template <typename T>
FESTINA_HOST_DEVICE void add_row(const Norm<T>& norm, std::uint32_t row, std::uint32_t thread,
                                 RowSums& sums) {
  T* x = norm.x + std::size_t{row} * norm.width;
  float squares = 0.0F;
  for (std::uint32_t at = thread * 8; at < norm.width; at += threads * 8) {
    float part[8];
    load8(x + at, part);
    if (norm.update != nullptr) {
      float update[8];
      load8(norm.update + std::size_t{row} * norm.width + at, update);
      for (std::uint32_t i = 0; i < 8; ++i) {
        store(x + at + i, part[i] + update[i]);
        part[i] = to_float(x[at + i]);
      }
    }
    for (float value : part) squares = fmaf(value, value, squares);
  }
  sums.parts[thread] = squares;
}

FESTINA_HOST_DEVICE inline void fold_row(std::uint32_t thread, RowSums& sums) {
  if (thread >= folds) return;
  float sum = 0.0F;
  for (std::uint32_t i = 0; i < threads / folds; ++i)
    sum += sums.parts[thread * (threads / folds) + i];
  sums.folded[thread] = sum;
}

template <typename T>
FESTINA_HOST_DEVICE void scale_row(const Norm<T>& norm, std::uint32_t row, std::uint32_t thread,
                                   const RowSums& sums) {
  float squares = 0.0F;
  for (float part : sums.folded) squares += part;
  const float factor = inverse_root(squares, norm.width, norm.eps);
  const std::size_t start = std::size_t{row} * norm.width;
  for (std::uint32_t at = thread * 8; at < norm.width; at += threads * 8) {
    float part[8];
    load8(norm.x + start + at, part);
    for (std::uint32_t i = 0; i < 8; ++i) {
      store(norm.out + start + at + i, part[i] * factor * norm.gain[at + i]);
    }
  }
}

FESTINA_HOST_DEVICE inline float sigmoid(float x) {
  const float e = exp_negative(-fabsf(x));
  return (x >= 0.0F ? 1.0F : e) / (1.0F + e);
}

// Eight components of a gate; `item` counts them over all rows.
template <typename T>
FESTINA_HOST_DEVICE void gate_eight(const Gate<T>& gate, std::size_t item) {
  const std::uint32_t columns = gate.width / 8;
  const std::size_t row = item / columns;
  const std::size_t at = item % columns * 8;
  float open[8];
  float up[8];
  load8(gate.gate_up + row * 2 * gate.width + at, open);
  load8(gate.gate_up + (row * 2 + 1) * gate.width + at, up);
  for (std::uint32_t i = 0; i < 8; ++i) {
    const float x = open[i];
    // gelu's 0.5 (1 + tanh u) is sigmoid(2u), without the cancellation.
    const float u = gate.gelu ? 1.5957691216F * fmaf(0.044715F * x * x, x, x) : x;
    store(gate.out + row * gate.width + at + i, x * sigmoid(u) * up[i]);
  }
}

// Phase 1 of a rotation, where heads are normed: parts of the squares of each query and key head.
template <typename T>
FESTINA_HOST_DEVICE void square_heads(const Rotate<T>& rotate, std::uint32_t row,
                                      std::uint32_t thread, HeadSums& sums) {
  const std::size_t width = std::size_t{rotate.queries + 2 * rotate.keys} * rotate.head_dim;
  for (std::uint32_t item = thread; item < (rotate.queries + rotate.keys) * folds;
       item += threads) {
    const T* head = rotate.qkv + row * width + std::size_t{item / folds} * rotate.head_dim;
    float squares = 0.0F;
    for (std::uint32_t at = item % folds * 8; at < rotate.head_dim; at += folds * 8) {
      float part[8];
      load8(head + at, part);
      for (float value : part) squares = fmaf(value, value, squares);
    }
    sums.parts[item] = squares;
  }
}

// Where a component of a head lies in the cache's block.
FESTINA_HOST_DEVICE inline std::size_t key_place(std::uint32_t component, std::uint32_t place) {
  return std::size_t{component / 8} * block_tokens * 8 + std::size_t{place} * 8 + component % 8;
}

// Phase 2: queries and keys turned, keys and values cached.
template <typename T>
FESTINA_HOST_DEVICE void turn_heads(const Rotate<T>& rotate, std::uint32_t row,
                                    std::uint32_t thread, const HeadSums& sums) {
  const std::uint32_t head_dim = rotate.head_dim;
  const std::size_t width = std::size_t{rotate.queries + 2 * rotate.keys} * head_dim;
  const auto slot = static_cast<std::uint32_t>(rotate.slots[row]);
  const std::uint32_t place = slot % block_tokens;
  const std::size_t block = std::size_t{slot / block_tokens} * rotate.block_stride;
  const std::uint32_t half = head_dim / 2;
  for (std::uint32_t item = thread; item < (rotate.queries + rotate.keys) * half; item += threads) {
    const std::uint32_t head = item / half;
    const std::uint32_t pair = item % half;
    const bool turned = pair < rotate.pairs;
    // Pairs that are not turned come last, in either form.
    const bool apart = rotate.halves && turned;
    const std::uint32_t first = apart ? pair : 2 * pair;
    const std::uint32_t second = apart ? pair + rotate.pairs : first + 1;
    T* at = rotate.qkv + row * width + std::size_t{head} * head_dim;
    float a = to_float(at[first]);
    float b = to_float(at[second]);
    const float* gain = head < rotate.queries ? rotate.q_gain : rotate.k_gain;
    if (gain != nullptr) {
      float squares = 0.0F;
      for (std::uint32_t i = 0; i < folds; ++i) squares += sums.parts[head * folds + i];
      const float factor = inverse_root(squares, head_dim, rotate.eps);
      // Rounded as the norm of any row is.
      T rounded[2];
      store(&rounded[0], a * factor * gain[first]);
      store(&rounded[1], b * factor * gain[second]);
      a = to_float(rounded[0]);
      b = to_float(rounded[1]);
    }
    float c = a;
    float d = b;
    if (turned) {
      const float cosine = rotate.cosines[std::size_t{row} * rotate.pairs + pair];
      const float sine = rotate.sines[std::size_t{row} * rotate.pairs + pair];
      c = fmaf(a, cosine, -(b * sine));
      d = fmaf(b, cosine, a * sine);
    }
    if (head < rotate.queries) {
      store(at + first, c);
      store(at + second, d);
    } else {
      const std::size_t start = std::size_t{head - rotate.queries} * head_dim * block_tokens;
      T* keys = rotate.cached_keys + block + start;
      store(keys + key_place(first, place), c);
      store(keys + key_place(second, place), d);
    }
  }
  const T* values = rotate.qkv + row * width + std::size_t{rotate.queries + rotate.keys} * head_dim;
  for (std::uint32_t item = thread; item < rotate.keys * head_dim; item += threads) {
    const std::size_t start = std::size_t{item / head_dim} * head_dim * block_tokens;
    rotate.cached_values[block + start + std::size_t{place} * head_dim + item % head_dim] =
        values[item];
  }
}

}  // namespace festina::decoder_ops
