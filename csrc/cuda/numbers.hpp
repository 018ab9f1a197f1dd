#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/host_device.hpp"

// Numbers as kernels store and compute them. Sums are written with fmaf, and the exponential is our
// own, so that host and device give the same bits.

namespace festina::cuda {

// The upper half of a float32.
struct Bf16 {
  std::uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

FESTINA_HOST_DEVICE inline float from_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

FESTINA_HOST_DEVICE inline std::uint32_t to_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

FESTINA_HOST_DEVICE inline float to_float(float value) { return value; }
FESTINA_HOST_DEVICE inline float to_float(Bf16 value) {
  return from_bits(static_cast<std::uint32_t>(value.bits) << 16);
}

FESTINA_HOST_DEVICE inline void store(float* at, float value) { *at = value; }

// To the nearest, ties to even; NaN stays NaN.
FESTINA_HOST_DEVICE inline void store(Bf16* at, float value) {
  const std::uint32_t bits = to_bits(value);
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  at->bits = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40U : rounded >> 16);
}

// What moves as one access; without the alignment it would be several.
struct alignas(16) Words {
  std::uint32_t word[4];
};

// Eight neighbours at an address that 16 bytes divide.
FESTINA_HOST_DEVICE inline void load8(const float* at, float (&out)[8]) {
  const auto* from = reinterpret_cast<const Words*>(at);
  for (int half = 0; half < 2; ++half) {
    const Words four = from[half];
    for (int i = 0; i < 4; ++i) {
      out[4 * half + i] = from_bits(four.word[i]);
    }
  }
}

FESTINA_HOST_DEVICE inline void load8(const Bf16* at, float (&out)[8]) {
  const Words pairs = *reinterpret_cast<const Words*>(at);
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = from_bits(pairs.word[i] << 16);
    out[2 * i + 1] = from_bits(pairs.word[i] & 0xffff0000U);
  }
}

// e^x for x ≤ 0, 0 below -87; relative error under 2e-7. Cephes' expf, in this order of operations.
FESTINA_HOST_DEVICE inline float exp_negative(float x) {
  if (!(x > -87.0F)) {  // -inf too
    return 0.0F;
  }
  const float whole = rintf(x * 1.44269504088896341F);
  float rest = fmaf(whole, -0.693359375F, x);
  rest = fmaf(whole, 2.12194440e-4F, rest);
  float sum = 1.9875691500e-4F;
  sum = fmaf(sum, rest, 1.3981999507e-3F);
  sum = fmaf(sum, rest, 8.3334519073e-3F);
  sum = fmaf(sum, rest, 4.1665795894e-2F);
  sum = fmaf(sum, rest, 1.6666665459e-1F);
  sum = fmaf(sum, rest, 5.0000001201e-1F);
  sum = fmaf(sum, rest * rest, rest);
  sum += 1.0F;
  const auto power = static_cast<std::uint32_t>(static_cast<int>(whole) + 127) << 23;
  return sum * from_bits(power);
}

}  // namespace festina::cuda
