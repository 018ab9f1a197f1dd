#pragma once
// Decoders of GGUF block formats, 32 values at a time. Internal linkage, see simd.hpp.
//
// A block type has: kGroups (groups of 32 values in a block), kBytes, and
//   decode(block, group, w): the group's values, in order, into the vectors w.
#include "core/cpu_kernels/simd.hpp"

namespace festina::cpu {
namespace {

inline constexpr int kGroupValues = 32;
inline constexpr int kGroupVectors = kGroupValues / kLanes;
using Group = VecF[kGroupVectors];

/// The two half-precision values at `from`.
struct HalfPair {
  VecF first, second;
  FESTINA_INLINE explicit HalfPair(const std::uint8_t* from) {
#if defined(__F16C__)
    const auto pair = bits_as<Vec4>(_mm_cvtph_ps(_mm_cvtsi32_si128(load_as<std::int32_t>(from))));
    first = splat(pair[0]);
    second = splat(pair[1]);
#else
    first = splat(half_at(from));
    second = splat(half_at(from + 2));
#endif
  }
};

/// Sixteen bytes hold 32 nibbles: the low ones are values 0-15, the high ones values 16-31.
template <class F>
FESTINA_INLINE void for_nibbles(const std::uint8_t* packed, F&& put) {
  constexpr int kHalf = kGroupVectors / 2;
  for (int i = 0; i < kHalf; ++i) {
    const VecI both = bytes(packed + i * kLanes);
    put(i, both & 15);
    put(i + kHalf, both >> 4);
  }
}

/// The fifth bits of values 0-31, one bit each, as 16 or 0 for the values of vector `i`.
FESTINA_INLINE VecI fifth_bits(const std::uint8_t* packed, int i) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, packed, sizeof bits);
  const VecU shifted =
      (VecU{} + bits) >> (bits_as<VecU>(iota()) + static_cast<std::uint32_t>(i * kLanes));
  return bits_as<VecI>((shifted & 1U) << 4);
}

struct Q4_0 {
  static constexpr int kGroups = 1, kBytes = 18;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int, Group& w) {
    const VecF d = splat(half_at(block));
    for_nibbles(block + 2, [&](int i, VecI q) { w[i] = to_float(q - 8) * d; });
  }
};

struct Q4_1 {
  static constexpr int kGroups = 1, kBytes = 20;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int, Group& w) {
    const HalfPair scale(block);
    const VecF d = scale.first, m = scale.second;
#if FESTINA_LANES == 16
    // All 16 values a nibble can mean, then one permutation per 16 weights.
    const VecF table = madd(to_float(iota()), d, m);
    const VecI both = bytes(block + 4);
    w[0] = permute(table, both);
    w[1] = permute(table, both >> 4);
#else
    for_nibbles(block + 4, [&](int i, VecI q) { w[i] = madd(to_float(q), d, m); });
#endif
  }
};

struct Q5_0 {
  static constexpr int kGroups = 1, kBytes = 22;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int, Group& w) {
    const VecF d = splat(half_at(block));
    for_nibbles(block + 6,
                [&](int i, VecI q) { w[i] = to_float((q | fifth_bits(block + 2, i)) - 16) * d; });
  }
};

struct Q5_1 {
  static constexpr int kGroups = 1, kBytes = 24;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int, Group& w) {
    const VecF d = splat(half_at(block)), m = splat(half_at(block + 2));
    for_nibbles(block + 8,
                [&](int i, VecI q) { w[i] = madd(to_float(q | fifth_bits(block + 4, i)), d, m); });
  }
};

struct Q8_0 {
  static constexpr int kGroups = 1, kBytes = 34;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int, Group& w) {
    const VecF d = splat(half_at(block));
    for (int i = 0; i < kGroupVectors; ++i) {
      w[i] = to_float(signed_bytes(block + 2 + i * kLanes)) * d;
    }
  }
};

/// Scale and minimum of group `g` in the 12 packed bytes of Q4_K and Q5_K (6 bits each).
struct ScaleMin {
  float scale, min;
  FESTINA_INLINE ScaleMin(const std::uint8_t* p, int g) {
    const int s = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | (p[g - 4] >> 6) << 4;
    const int m = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | (p[g] >> 6) << 4;
    scale = static_cast<float>(s);
    min = static_cast<float>(m);
  }
};

struct Q4_K {
  static constexpr int kGroups = 8, kBytes = 144;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int g, Group& w) {
    const ScaleMin sm(block + 4, g);
    const VecF d = splat(half_at(block) * sm.scale), m = splat(-half_at(block + 2) * sm.min);
    const std::uint8_t* q = block + 16 + g / 2 * 32;
    for (int i = 0; i < kGroupVectors; ++i) {
      w[i] = madd(to_float(bytes(q + i * kLanes) >> (g % 2 * 4) & 15), d, m);
    }
  }
};

struct Q5_K {
  static constexpr int kGroups = 8, kBytes = 176;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int g, Group& w) {
    const ScaleMin sm(block + 4, g);
    const VecF d = splat(half_at(block) * sm.scale), m = splat(-half_at(block + 2) * sm.min);
    const std::uint8_t *high = block + 16, *q = block + 48 + g / 2 * 32;
    for (int i = 0; i < kGroupVectors; ++i) {
      const VecI fifth = (bytes(high + i * kLanes) >> g & 1) << 4;
      w[i] = madd(to_float((bytes(q + i * kLanes) >> (g % 2 * 4) & 15) | fifth), d, m);
    }
  }
};

struct Q6_K {
  static constexpr int kGroups = 8, kBytes = 210;
  static FESTINA_INLINE void decode(const std::uint8_t* block, int g, Group& w) {
    const int half = g / 4, part = g % 4;
    const std::uint8_t *low = block + half * 64 + part % 2 * 32, *high = block + 128 + half * 32;
    const std::uint8_t* scales = block + 192 + half * 8 + part * 2;
    const float d = half_at(block + 208);
    for (int i = 0; i < kGroupVectors; ++i) {
      const VecI bits = bytes(low + i * kLanes) >> (part / 2 * 4) & 15;
      const VecI top = (bytes(high + i * kLanes) >> (part * 2) & 3) << 4;
      const auto scale = static_cast<std::int8_t>(scales[i * kLanes / 16]);
      w[i] = to_float((bits | top) - 32) * (d * static_cast<float>(scale));
    }
  }
};

/// One row of whole blocks to floats.
template <class Block>
void decode_row(const std::uint8_t* row, std::size_t columns, float* out) {
  Group w;
  for (std::size_t c = 0; c < columns; row += Block::kBytes) {
    for (int g = 0; g < Block::kGroups; ++g, c += kGroupValues) {
      Block::decode(row, g, w);
      for (int i = 0; i < kGroupVectors; ++i) store(out + c + i * kLanes, w[i]);
    }
  }
}

struct F16 {
  static constexpr int kBytes = 2;
  static FESTINA_INLINE VecF widen(VecU16 h) { return half_to_float(h); }
};

struct BF16 {
  static constexpr int kBytes = 2;
  static FESTINA_INLINE VecF widen(VecU16 h) {
    return bits_as<VecF>(__builtin_convertvector(h, VecU) << 16);
  }
};

/// One row of 16-bit floats.
template <class Dense>
void widen_row(const std::uint8_t* row, std::size_t columns, float* out) {
  std::size_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    store(out + c, Dense::widen(load_as<VecU16>(row + c * 2)));
  }
  if (c == columns) return;
  VecU16 rest{};
  __builtin_memcpy(&rest, row + c * 2, (columns - c) * 2);
  const VecF values = Dense::widen(rest);
  __builtin_memcpy(out + c, &values, (columns - c) * 4);
}

}  // namespace
}  // namespace festina::cpu
