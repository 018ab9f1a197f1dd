#pragma once
#include <cstddef>
#include <cstdint>

#include "core/cpu_kernels/weight.hpp"

namespace festina::cpu {

/// Tokens in one KV block.
inline constexpr std::size_t kBlockTokens = 16;

/// Rows of a weight that are decoded together before they are multiplied with many rows of x.
inline constexpr std::size_t kPanelRows = 48;
/// Floats between rows of a panel beyond the row itself: rows must not share cache sets.
inline constexpr std::size_t kPanelPadding = 16;
/// Widest vector of any instruction set, in floats.
inline constexpr std::size_t kMaxLanes = 16;

/// Floats of scratch that `matmul` needs for n rows of `columns` values.
constexpr std::size_t matmul_scratch(std::size_t n, std::size_t columns) {
  const std::size_t padded = (columns + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  return kPanelRows * (padded + kPanelPadding) + (padded == columns ? 0 : n * padded);
}

/// Where keys and values of one layer live: K as [block][kv head][head_dim][16] (tokens innermost,
/// so that the 16 scores of a block are one vector), V as [block][kv head][16][head_dim].
struct KvLayer {
  float* keys;
  float* values;
};

/// Which tokens a flat batch holds. All arrays have been checked by the caller (see batch.hpp).
struct BatchView {
  std::size_t tokens;
  const std::int32_t* positions;      // [tokens], index of the token in its sequence
  const std::int32_t* sequences;      // [tokens], index into block_offsets
  const std::int32_t* blocks;         // block tables of all sequences, one after the other
  const std::int32_t* block_offsets;  // [sequences + 1]
};

/// Sizes of attention.
struct AttentionShape {
  std::size_t heads;
  std::size_t kv_heads;
  std::size_t head_dim;
  std::size_t window;  // keys that a token sees, itself included; 0 = all before it
  float scale;         // applied to the scores
};

/// Floats of scratch that `attention` needs.
constexpr std::size_t attention_scratch(const AttentionShape& shape) {
  return shape.heads / shape.kv_heads * (kBlockTokens + 3) + kMaxLanes;
}

/// Which values RoPE turns together.
enum class RopeStyle : std::uint32_t {
  kInterleaved = 0,  // (0, 1), (2, 3), …: GGUF files of architecture `llama`
  kHalfSplit = 1,    // (0, d/2), (1, d/2 + 1), …: gemma3
};

enum class Activation : std::uint32_t { kSilu = 0, kGeluTanh = 1 };

/// The kernels of one instruction set. Each works on one thread, allocates nothing, and trusts its
/// arguments: shapes and indices are checked by the callers in bindings/ and by Decoder. Matrices
/// are row-major and need no alignment. A value in the output never depends on what else is in the
/// batch: it is bit for bit the same alone and in company.
struct Kernels {
  const char* name;

  /// out[i][j] = (accumulate ? out[i][j] : 0) + Σ x[i][c]·w[j][c], for n rows of x; `out` has rows
  /// of w.rows values. `scratch`: matmul_scratch(n, w.columns) floats.
  void (*matmul)(const float* x, std::size_t n, const Weight& w, float* out, bool accumulate,
                 float* scratch);

  /// out[i] = row rows[i] of w, times `scale`.
  void (*embed)(const Weight& w, const std::int32_t* rows, std::size_t n, float scale, float* out);

  /// out = x / sqrt(mean(x²) + eps) · gain, per row. `out` may be `x`.
  void (*rms_norm)(const float* x, std::size_t n, std::size_t width, const float* gain, float eps,
                   float* out);

  /// Turns x [n][heads][head_dim] in place; cosines and sines are [n][pairs], pairs ≤ head_dim/2.
  void (*rope)(float* x, std::size_t n, std::size_t heads, std::size_t head_dim, std::size_t pairs,
               const float* cosines, const float* sines, RopeStyle style);

  /// gate = activation(gate) · up, elementwise.
  void (*gate)(float* gate, const float* up, std::size_t n, Activation activation);

  /// x += y.
  void (*add)(float* x, const float* y, std::size_t n);

  /// Writes k, v [tokens][kv_heads][head_dim] to the batch's places in the cache.
  void (*store_kv)(const float* k, const float* v, const BatchView& batch, std::size_t kv_heads,
                   std::size_t head_dim, const KvLayer& cache);

  /// out [tokens][heads][head_dim] = causal softmax attention of q over the cached keys at
  /// positions 0 … position of the token. `scratch`: attention_scratch(shape) floats.
  void (*attention)(const float* q, const BatchView& batch, const KvLayer& cache,
                    const AttentionShape& shape, float* out, float* scratch);

  /// Does rounds · probe_flops operations at the machine's best rate: what a product can reach.
  void (*probe)(std::size_t rounds, float* sink);
  std::size_t probe_flops;

  /// Index of the largest value per row; the first one of equals.
  void (*argmax)(const float* x, std::size_t n, std::size_t width, std::int32_t* out);
};

/// Kernels this machine can run, best first. Never empty.
struct KernelList {
  const Kernels* const* begin;
  std::size_t size;
};
KernelList available_kernels();

/// Kernels by name ("avx512", "avx2", "baseline"), or the best for "".
/// Throws UnsupportedError for a name this machine cannot run.
const Kernels& find_kernels(const char* name);

}  // namespace festina::cpu
