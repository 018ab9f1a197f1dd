#pragma once
// Vectors of `kLanes` floats on compiler vector extensions: one source for every instruction set.
//
// Included by the isa_*.cpp files only, each compiled with its own flags. All of it has internal
// linkage: the linker may keep any one copy of an inline function, and a copy compiled for
// AVX-512 must not end up in the code of a machine without it. For the same reason nothing here
// may call inline functions of the standard library.
#include <cstddef>
#include <cstdint>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#define FESTINA_INLINE inline __attribute__((always_inline))

namespace festina::cpu {
namespace {  // NOLINT: see above

inline constexpr int kLanes = FESTINA_LANES;

typedef float VecF __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t VecI __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t VecU __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t VecU16 __attribute__((vector_size(kLanes * 2)));
typedef std::uint8_t VecU8 __attribute__((vector_size(kLanes)));
typedef std::int8_t VecI8 __attribute__((vector_size(kLanes)));

template <class V>
FESTINA_INLINE V load_as(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

FESTINA_INLINE VecF load(const float* from) { return load_as<VecF>(from); }
FESTINA_INLINE void store(float* to, VecF v) { __builtin_memcpy(to, &v, sizeof v); }
FESTINA_INLINE VecF splat(float x) { return x - VecF{}; }
FESTINA_INLINE VecI splat(std::int32_t x) { return VecI{} + x; }

template <class To, class From>
FESTINA_INLINE To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &v, sizeof to);
  return to;
}

FESTINA_INLINE VecF to_float(VecI v) { return __builtin_convertvector(v, VecF); }

// kLanes bytes to kLanes integers. Compilers take __builtin_convertvector from such short vectors
// apart into scalars, so the instructions are named.
#if defined(__AVX512F__) && FESTINA_LANES == 16
FESTINA_INLINE VecI bytes(const std::uint8_t* from) {
  return reinterpret_cast<VecI>(_mm512_cvtepu8_epi32(load_as<__m128i>(from)));
}
FESTINA_INLINE VecI signed_bytes(const std::uint8_t* from) {
  return reinterpret_cast<VecI>(_mm512_cvtepi8_epi32(load_as<__m128i>(from)));
}
#elif defined(__AVX2__) && FESTINA_LANES == 8
FESTINA_INLINE VecI bytes(const std::uint8_t* from) {
  return reinterpret_cast<VecI>(_mm256_cvtepu8_epi32(_mm_loadu_si64(from)));
}
FESTINA_INLINE VecI signed_bytes(const std::uint8_t* from) {
  return reinterpret_cast<VecI>(_mm256_cvtepi8_epi32(_mm_loadu_si64(from)));
}
#elif defined(__SSE2__) && FESTINA_LANES == 4
FESTINA_INLINE VecI bytes(const std::uint8_t* from) {
  const __m128i zero = _mm_setzero_si128(), b = _mm_cvtsi32_si128(load_as<std::int32_t>(from));
  return reinterpret_cast<VecI>(_mm_unpacklo_epi16(_mm_unpacklo_epi8(b, zero), zero));
}
FESTINA_INLINE VecI signed_bytes(const std::uint8_t* from) { return (bytes(from) << 24) >> 24; }
#else
FESTINA_INLINE VecI bytes(const std::uint8_t* from) {
  return __builtin_convertvector(load_as<VecU8>(from), VecI);
}
FESTINA_INLINE VecI signed_bytes(const std::uint8_t* from) {
  return __builtin_convertvector(load_as<VecI8>(from), VecI);
}
#endif

/// 0, 1, 2, … as a vector.
FESTINA_INLINE VecI iota() {
  VecI v{};
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

/// a·b + c, with one rounding where the machine can. Explicit (not left to the compiler's
/// contraction), so that a value does not depend on the tile it is computed in.
FESTINA_INLINE VecF madd(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__) && FESTINA_LANES == 16
  return reinterpret_cast<VecF>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__) && FESTINA_LANES == 8
  return reinterpret_cast<VecF>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#elif defined(__FMA__) && FESTINA_LANES == 16
  struct Halves {
    __m256 low, high;
  };
  const auto x = bits_as<Halves>(a), y = bits_as<Halves>(b), z = bits_as<Halves>(c);
  return bits_as<VecF>(
      Halves{_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)});
#else
  return a * b + c;
#endif
}

/// Lane i of the result is lane index[i] of the table; only the low bits of an index count.
FESTINA_INLINE VecF permute(VecF table, VecI index) {
#if defined(__AVX512F__) && FESTINA_LANES == 16
  return reinterpret_cast<VecF>(
      _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), reinterpret_cast<__m512>(table)));
#else
  VecF result{};
  for (int i = 0; i < kLanes; ++i) result[i] = table[index[i] & (kLanes - 1)];
  return result;
#endif
}

typedef float Vec4 __attribute__((vector_size(16)));

/// Sum of neighbouring halves down to four lanes; always in the same order.
FESTINA_INLINE Vec4 fold(VecF v) {
  float lanes[kLanes];
  __builtin_memcpy(lanes, &v, sizeof v);
  Vec4 quarter[kLanes / 4];
  __builtin_memcpy(quarter, lanes, sizeof v);
  for (int n = kLanes / 4; n > 1; n /= 2) {
    for (int i = 0; i < n / 2; ++i) quarter[i] += quarter[i + n / 2];
  }
  return quarter[0];
}

FESTINA_INLINE float sum(VecF v) {
  const Vec4 s = fold(v);
  return (s[0] + s[2]) + (s[1] + s[3]);
}

/// The sums of four vectors, each in the order of `sum`.
FESTINA_INLINE Vec4 sums(VecF a, VecF b, VecF c, VecF d) {
  const Vec4 fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
  const Vec4 ab = __builtin_shufflevector(fa, fb, 0, 4, 1, 5) +  // a0+a2, b0+b2, a1+a3, b1+b3
                  __builtin_shufflevector(fa, fb, 2, 6, 3, 7);
  const Vec4 cd =
      __builtin_shufflevector(fc, fd, 0, 4, 1, 5) + __builtin_shufflevector(fc, fd, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

FESTINA_INLINE float maximum(VecF v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

/// IEEE half precision, exactly; subnormals, infinities and NaN included.
FESTINA_INLINE VecF half_to_float(VecU16 h) {
  const VecU wide = __builtin_convertvector(h, VecU);
  const VecU sign = (wide & 0x8000U) << 16;
  const VecU special = bits_as<VecU>((wide & 0x7c00U) == 0x7c00U) & 0x7f800000U;
  const VecF scaled = bits_as<VecF>((wide & 0x7fffU) << 13) * 0x1p112F;
  return bits_as<VecF>(bits_as<VecU>(scaled) | sign | special);
}

FESTINA_INLINE float half_at(const std::uint8_t* from) {
  std::uint16_t h;
  __builtin_memcpy(&h, from, sizeof h);
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  const auto scaled = bits_as<float>((h & 0x7fffU) << 13) * 0x1p112F;
  const std::uint32_t special = (h & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
  return bits_as<float>(bits_as<std::uint32_t>(scaled) | (h & 0x8000U) << 16 | special);
#endif
}

/// e^x to about 1 ulp for x in [-87, 88]; smaller x give 0, larger ones +inf-like growth is cut at
/// e^88. Cephes' expf: range reduction by ln 2 in two parts, then a polynomial of degree 5.
FESTINA_INLINE VecF exp(VecF x) {
  const VecF top = splat(88.0F);
  const VecI tiny = x < -87.0F;
  x = x > top ? top : x;
  x = x < -87.0F ? splat(-87.0F) : x;
  const VecF shift = splat(12582912.0F);  // 1.5·2^23: adding it rounds to an integer
  const VecF n = madd(x, splat(1.44269504088896341F), shift) - shift;
  VecF r = madd(n, splat(-0.693359375F), x);
  r = madd(n, splat(2.12194440e-4F), r);
  VecF p = splat(1.9875691500e-4F);
  p = madd(p, r, splat(1.3981999507e-3F));
  p = madd(p, r, splat(8.3334519073e-3F));
  p = madd(p, r, splat(4.1665795894e-2F));
  p = madd(p, r, splat(1.6666665459e-1F));
  p = madd(p, r, splat(5.0000001201e-1F));
  p = madd(p, r * r, r) + 1.0F;
  const VecI exponent = (__builtin_convertvector(n, VecI) + 127) << 23;
  const VecF value = p * bits_as<VecF>(exponent);
  return tiny ? splat(0.0F) : value;
}

}  // namespace
}  // namespace festina::cpu
