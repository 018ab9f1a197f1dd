#pragma once
// Norm, rotation, activation, embedding. Internal linkage, see simd.hpp.
#include "core/cpu_kernels/kernels.hpp"
#include "core/cpu_kernels/matmul.hpp"

namespace festina::cpu {
namespace {

/// The first `n` < kLanes floats at `from`, zeros after them.
FESTINA_INLINE VecF load_part(const float* from, std::size_t n) {
  VecF v{};
  __builtin_memcpy(&v, from, n * 4);
  return v;
}

/// to[i] = op(to[i], from[i]), in vectors with a padded last one.
template <class Op>
FESTINA_INLINE void zip(float* to, const float* from, std::size_t n, const Op& op) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, op(load(to + i), load(from + i)));
  if (i == n) return;
  const VecF rest = op(load_part(to + i, n - i), load_part(from + i, n - i));
  __builtin_memcpy(to + i, &rest, (n - i) * 4);
}

void add(float* x, const float* y, std::size_t n) {
  zip(x, y, n, [](VecF a, VecF b) { return a + b; });
}

/// x / (1 + e^-x)
FESTINA_INLINE VecF silu(VecF x) { return x / (1.0F + exp(-x)); }

/// 0.5·x·(1 + tanh(u)) with u = sqrt(2/π)·(x + 0.044715·x³), written as x / (1 + e^-2u).
FESTINA_INLINE VecF gelu_tanh(VecF x) {
  const VecF u = x * madd(x * x, splat(0.044715F * 0.7978845608F), splat(0.7978845608F));
  return x / (1.0F + exp(-2.0F * u));
}

void gate(float* g, const float* up, std::size_t n, Activation activation) {
  if (activation == Activation::kSilu) {
    zip(g, up, n, [](VecF a, VecF b) { return silu(a) * b; });
  } else {
    zip(g, up, n, [](VecF a, VecF b) { return gelu_tanh(a) * b; });
  }
}

void rms_norm(const float* x, std::size_t n, std::size_t width, const float* gain, float eps,
              float* out) {
  for (std::size_t i = 0; i < n; ++i, x += width, out += width) {
    VecF squares{};
    std::size_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      const VecF v = load(x + c);
      squares = madd(v, v, squares);
    }
    const VecF rest = load_part(x + c, width - c);
    squares = madd(rest, rest, squares);
    const float scale = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    for (c = 0; c + kLanes <= width; c += kLanes) {
      store(out + c, load(x + c) * scale * load(gain + c));
    }
    const VecF last = rest * scale * load_part(gain + c, width - c);
    __builtin_memcpy(out + c, &last, (width - c) * 4);
  }
}

void rope(float* x, std::size_t n, std::size_t heads, std::size_t head_dim, std::size_t pairs,
          const float* cosines, const float* sines, RopeStyle style) {
  const std::size_t step = style == RopeStyle::kInterleaved ? 2 : 1;
  const std::size_t apart = style == RopeStyle::kInterleaved ? 1 : pairs;
  for (std::size_t i = 0; i < n; ++i, cosines += pairs, sines += pairs) {
    for (std::size_t h = 0; h < heads; ++h, x += head_dim) {
      for (std::size_t p = 0; p < pairs; ++p) {
        const float a = x[p * step], b = x[p * step + apart];
        x[p * step] = a * cosines[p] - b * sines[p];
        x[p * step + apart] = b * cosines[p] + a * sines[p];
      }
    }
  }
}

void embed(const Weight& w, const std::int32_t* rows, std::size_t n, float scale, float* out) {
  for (std::size_t i = 0; i < n; ++i, out += w.columns) {
    decode_any(w, static_cast<std::size_t>(rows[i]), out);
    if (scale != 1.0F) zip(out, out, w.columns, [=](VecF a, VecF) { return a * scale; });
  }
}

void argmax(const float* x, std::size_t n, std::size_t width, std::int32_t* out) {
  for (std::size_t i = 0; i < n; ++i, x += width) {
    VecF best{};
    std::size_t c = 0;
    best = splat(x[0]);
    for (; c + kLanes <= width; c += kLanes) {
      const VecF v = load(x + c);
      best = v > best ? v : best;
    }
    float top = maximum(best);
    for (; c < width; ++c) top = x[c] > top ? x[c] : top;
    std::size_t at = 0;
    while (at + 1 < width && x[at] != top) ++at;
    out[i] = static_cast<std::int32_t>(at);
  }
}

}  // namespace
}  // namespace festina::cpu
