#pragma once
// Matrix products on quantised weights. Internal linkage, see simd.hpp.
//
// Every product is a dot along k in one vector accumulator, folded in one fixed order. Tiles only
// choose how many such dots are in flight, so a result does not depend on n or on its place.
#include "core/cpu_kernels/blocks.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace festina::cpu {
namespace {

// Weight rows × x rows held in registers: 32 vector registers with AVX-512, else 16.
inline constexpr int kTileRows = FESTINA_TILE_ROWS;
inline constexpr int kTileX = FESTINA_TILE_X;
static_assert(kPanelRows % kTileRows == 0);

struct Output {
  float* out;
  std::size_t stride;
  bool accumulate;

  FESTINA_INLINE void put(std::size_t x_row, std::size_t w_row, float value) const {
    float& to = out[x_row * stride + w_row];
    to = accumulate ? to + value : value;
  }
};

/// Writes the sums of R × N accumulators, of four weight rows at a time where R allows.
template <int R, int N>
FESTINA_INLINE void put_sums(const VecF (&acc)[R][N], const Output& to) {
  for (int j = 0; j < N; ++j) {
    const auto x_row = static_cast<std::size_t>(j);
    if constexpr (R == 4) {
      float* out = to.out + x_row * to.stride;
      const Vec4 s = sums(acc[0][j], acc[1][j], acc[2][j], acc[3][j]);
      const Vec4 value = to.accumulate ? load_as<Vec4>(out) + s : s;
      __builtin_memcpy(out, &value, sizeof value);
    } else {
      for (int r = 0; r < R; ++r) to.put(x_row, static_cast<std::size_t>(r), sum(acc[r][j]));
    }
  }
}

/// R weight rows (floats, `ldw` apart) times N rows of x, k a multiple of kLanes.
template <int R, int N>
FESTINA_INLINE void tile(const float* w, std::size_t ldw, const float* x, std::size_t k,
                         std::size_t ldx, const Output& to) {
  VecF acc[R][N] = {};
  for (std::size_t c = 0; c < k; c += kLanes) {
    VecF wv[R];
    for (int r = 0; r < R; ++r) wv[r] = load(w + static_cast<std::size_t>(r) * ldw + c);
    for (int j = 0; j < N; ++j) {
      const VecF xv = load(x + static_cast<std::size_t>(j) * ldx + c);
      for (int r = 0; r < R; ++r) acc[r][j] = madd(wv[r], xv, acc[r][j]);
    }
  }
  put_sums<R, N>(acc, to);
}

/// The bytes of the next panel, fetched into the second cache a little at a time while this one is
/// multiplied: else the decoder would wait for memory, and memory for the multiplication.
struct Ahead {
  const std::uint8_t* from;
  const std::uint8_t* end;

  FESTINA_INLINE void fetch() {
    constexpr int kLines = 16, kLineBytes = 64;
    for (int i = 0; i < kLines && from < end; ++i, from += kLineBytes)
      __builtin_prefetch(from, 0, 2);
  }
};

/// N rows of x times a decoded panel of `rows` weight rows.
template <int N>
void panel_strip(const float* panel, std::size_t rows, std::size_t ldw, const float* x,
                 std::size_t k, const Output& to, Ahead& ahead) {
  std::size_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    ahead.fetch();
    tile<kTileRows, N>(panel + r * ldw, ldw, x, k, k, {to.out + r, to.stride, to.accumulate});
  }
  for (; r < rows; ++r) {
    tile<1, N>(panel + r * ldw, ldw, x, k, k, {to.out + r, to.stride, to.accumulate});
  }
}

/// Calls strip.template operator()<N>(first row) with N = `left`, if there are any.
template <int N, class Strip>
FESTINA_INLINE void for_rest(std::size_t left, std::size_t at, const Strip& strip) {
  if constexpr (N > 0) {
    if (left == static_cast<std::size_t>(N)) {
      strip.template operator()<N>(at);
    } else {
      for_rest<N - 1>(left, at, strip);
    }
  }
}

/// Calls strip.template operator()<N>(first row) for strips of kTileX rows, then for the rest: two
/// halves where one whole strip would leave a sliver that is slow for its size.
template <class Strip>
FESTINA_INLINE void for_strips(std::size_t n, const Strip& strip) {
  std::size_t at = 0;
  for (; n - at == kTileX || n - at >= kTileX + kTileX / 2; at += kTileX) {
    strip.template operator()<kTileX>(at);
  }
  if (n - at > kTileX) {
    const std::size_t half = (n - at + 1) / 2;
    for_rest<kTileX - 1>(half, at, strip);
    at += half;
  }
  for_rest<kTileX - 1>(n - at, at, strip);
}

/// One row of `w` as floats.
FESTINA_INLINE void decode_any(const Weight& w, std::size_t row, float* out) {
  const std::uint8_t* from = w.data + row * w.row_bytes;
  switch (w.type) {
    case WeightType::kF32:
      __builtin_memcpy(out, from, w.columns * 4);
      return;
    case WeightType::kF16:
      return widen_row<F16>(from, w.columns, out);
    case WeightType::kBF16:
      return widen_row<BF16>(from, w.columns, out);
    case WeightType::kQ4_0:
      return decode_row<Q4_0>(from, w.columns, out);
    case WeightType::kQ4_1:
      return decode_row<Q4_1>(from, w.columns, out);
    case WeightType::kQ5_0:
      return decode_row<Q5_0>(from, w.columns, out);
    case WeightType::kQ5_1:
      return decode_row<Q5_1>(from, w.columns, out);
    case WeightType::kQ8_0:
      return decode_row<Q8_0>(from, w.columns, out);
    case WeightType::kQ4_K:
      return decode_row<Q4_K>(from, w.columns, out);
    case WeightType::kQ5_K:
      return decode_row<Q5_K>(from, w.columns, out);
    case WeightType::kQ6_K:
      return decode_row<Q6_K>(from, w.columns, out);
  }
}

/// x with rows padded by zeros to a multiple of kLanes; x itself where they already are.
FESTINA_INLINE const float* pad_rows(const float* x, std::size_t n, std::size_t columns,
                                     std::size_t padded, float* scratch) {
  if (padded == columns) return x;
  for (std::size_t i = 0; i < n; ++i) {
    __builtin_memcpy(scratch + i * padded, x + i * columns, columns * 4);
    __builtin_memset(scratch + i * padded + columns, 0, (padded - columns) * 4);
  }
  return scratch;
}

/// Decodes panels of weight rows to floats and multiplies them with all rows of x.
void matmul_panels(const float* x, std::size_t n, const Weight& w, const Output& to,
                   float* scratch) {
  const std::size_t k = (w.columns + kLanes - 1) / kLanes * kLanes;
  const std::size_t ldw = k + kPanelPadding;
  float* panel = scratch;
  x = pad_rows(x, n, w.columns, k, scratch + kPanelRows * ldw);
  // A panel that is used once should stay in the first cache, one that is used often in the second.
  const std::size_t step = n <= kTileX ? kTileRows : kPanelRows;
  for (std::size_t first = 0; first < w.rows; first += step) {
    const std::size_t rows = w.rows - first < step ? w.rows - first : step;
    for (std::size_t r = 0; r < rows; ++r) {
      decode_any(w, first + r, panel + r * ldw);
      __builtin_memset(panel + r * ldw + w.columns, 0, (k - w.columns) * 4);
    }
    const std::size_t next = first + rows, after = next + step < w.rows ? next + step : w.rows;
    Ahead ahead{w.data + next * w.row_bytes, w.data + after * w.row_bytes};
    const Output here{to.out + first, to.stride, to.accumulate};
    for_strips(n, [&]<int N>(std::size_t at) {
      panel_strip<N>(panel, rows, ldw, x + at * k, k,
                     {here.out + at * here.stride, here.stride, here.accumulate}, ahead);
    });
  }
}

/// R weight rows times N rows of x, decoding straight into registers.
template <class Block, int R, int N>
FESTINA_INLINE void fused_tile(const std::uint8_t* w, std::size_t row_bytes, const float* x,
                               std::size_t k, const Output& to) {
  VecF acc[R][N] = {};
  for (std::size_t c = 0; c < k; w += Block::kBytes) {
    for (int g = 0; g < Block::kGroups; ++g, c += kGroupValues) {
      for (int r = 0; r < R; ++r) {
        const std::uint8_t* block = w + static_cast<std::size_t>(r) * row_bytes;
        // The rows of the next tile follow these: hardware does not see that far through R streams.
        __builtin_prefetch(block + R * row_bytes);
        Group wv;
        Block::decode(block, g, wv);
        for (int i = 0; i < kGroupVectors; ++i) {
          for (int j = 0; j < N; ++j) {
            const VecF xv = load(x + static_cast<std::size_t>(j) * k + c + i * kLanes);
            acc[r][j] = madd(wv[i], xv, acc[r][j]);
          }
        }
      }
    }
  }
  put_sums<R, N>(acc, to);
}

inline constexpr std::size_t kFusedX = 4;

template <class Block, int N>
void fused_rows(const float* x, const Weight& w, const Output& to) {
  constexpr int kFusedRows = N > 2 ? 2 : 4;
  const std::size_t row_bytes = w.row_bytes;
  std::size_t r = 0;
  for (; r + kFusedRows <= w.rows; r += kFusedRows) {
    fused_tile<Block, kFusedRows, N>(w.data + r * row_bytes, row_bytes, x, w.columns,
                                     {to.out + r, to.stride, to.accumulate});
  }
  for (; r < w.rows; ++r) {
    fused_tile<Block, 1, N>(w.data + r * row_bytes, row_bytes, x, w.columns,
                            {to.out + r, to.stride, to.accumulate});
  }
}

template <class Block>
void matmul_fused(const float* x, std::size_t n, const Weight& w, const Output& to) {
  if (n == 1) return fused_rows<Block, 1>(x, w, to);
  if (n == 2) return fused_rows<Block, 2>(x, w, to);
  if (n == 3) return fused_rows<Block, 3>(x, w, to);
  fused_rows<Block, 4>(x, w, to);
}

void matmul(const float* x, std::size_t n, const Weight& w, float* out, bool accumulate,
            float* scratch) {
  const Output to{out, w.rows, accumulate};
  if (n == 0 || n > kFusedX) return matmul_panels(x, n, w, to, scratch);
  switch (w.type) {
    case WeightType::kQ4_0:
      return matmul_fused<Q4_0>(x, n, w, to);
    case WeightType::kQ4_1:
      return matmul_fused<Q4_1>(x, n, w, to);
    case WeightType::kQ5_0:
      return matmul_fused<Q5_0>(x, n, w, to);
    case WeightType::kQ8_0:
      return matmul_fused<Q8_0>(x, n, w, to);
    default:
      return matmul_panels(x, n, w, to, scratch);
  }
}

/// As many independent chains as a tile has, all operands in registers.
void probe(std::size_t rounds, float* sink) {
  VecF acc[kTileRows * kTileX];  // all different, or the compiler would compute them once
  for (int i = 0; i < kTileRows * kTileX; ++i) acc[i] = splat(*sink + static_cast<float>(i));
  const VecF half = splat(0.5F);
  for (std::size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 32  // else compilers leave them in memory
    for (auto& a : acc) a = madd(a, half, half);
  }
  for (const auto& a : acc) *sink += sum(a);
}

}  // namespace
}  // namespace festina::cpu
