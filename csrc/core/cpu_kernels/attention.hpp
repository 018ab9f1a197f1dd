#pragma once
// Paged attention. Internal linkage, see simd.hpp.
#include "core/cpu_kernels/elementwise.hpp"

namespace festina::cpu {
namespace {

inline constexpr int kScoreVectors = static_cast<int>(kBlockTokens) / kLanes;
inline constexpr float kMasked = -1e30F;

void store_kv(const float* k, const float* v, const BatchView& batch, std::size_t kv_heads,
              std::size_t head_dim, const KvLayer& cache) {
  for (std::size_t t = 0; t < batch.tokens; ++t) {
    const auto position = static_cast<std::size_t>(batch.positions[t]);
    const std::int32_t* table = batch.blocks + batch.block_offsets[batch.sequences[t]];
    const auto block = static_cast<std::size_t>(table[position / kBlockTokens]);
    const std::size_t slot = position % kBlockTokens;
    for (std::size_t h = 0; h < kv_heads; ++h, k += head_dim, v += head_dim) {
      const std::size_t at = (block * kv_heads + h) * head_dim * kBlockTokens;
      for (std::size_t d = 0; d < head_dim; ++d) cache.keys[at + d * kBlockTokens + slot] = k[d];
      __builtin_memcpy(cache.values + at + slot * head_dim, v, head_dim * 4);
    }
  }
}

/// Running softmax of one query head: the largest score, Σ e^(score - largest), and the factor by
/// which what was gathered so far shrinks in this block.
struct Softmax {
  float* largest;
  float* total;
  float* shrink;
  float* weights;  // [heads][16]
};

/// A block of one KV head that is wanted soon: head_dim lines of keys, as many of values.
struct NextBlock {
  const float* keys;  // null: none
  const float* values;

  FESTINA_INLINE void fetch_line(std::size_t d) const {
    if (keys == nullptr) return;
    __builtin_prefetch(keys + d * kBlockTokens, 0, 2);
    __builtin_prefetch(values + d * kBlockTokens, 0, 2);
  }
};

/// Scores of G query heads against one block's 16 keys, then their weights. `from` … `to` are the
/// slots that this token may see.
template <int G>
FESTINA_INLINE void weigh_block(const float* q, std::size_t head_dim, const float* keys, int from,
                                int to, float scale, const Softmax& soft, const NextBlock& next) {
  VecF score[G][kScoreVectors] = {};
  for (std::size_t d = 0; d < head_dim; ++d) {
    next.fetch_line(d);
    for (int i = 0; i < kScoreVectors; ++i) {
      const VecF key = load(keys + d * kBlockTokens + i * kLanes);
      for (int g = 0; g < G; ++g) {
        score[g][i] = madd(splat(q[static_cast<std::size_t>(g) * head_dim + d]), key, score[g][i]);
      }
    }
  }
  for (int g = 0; g < G; ++g) {
    VecF top = splat(kMasked);
    for (int i = 0; i < kScoreVectors; ++i) {
      const VecI slot = iota() + i * kLanes;
      const VecI seen = (slot >= from) & (slot < to);
      score[g][i] = seen ? score[g][i] * scale : splat(kMasked);
      top = score[g][i] > top ? score[g][i] : top;
    }
    const float before = soft.largest[g], block_top = maximum(top);
    const float largest = block_top > before ? block_top : before;
    VecF total{};
    for (int i = 0; i < kScoreVectors; ++i) {
      const VecF weight = exp(score[g][i] - largest);
      store(soft.weights + g * static_cast<int>(kBlockTokens) + i * kLanes, weight);
      total += weight;
    }
    const float shrink = exp(splat(before - largest))[0];
    soft.largest[g] = largest;
    soft.shrink[g] = shrink;
    soft.total[g] = soft.total[g] * shrink + sum(total);
  }
}

/// out[g] = out[g]·shrink + Σ weights[g][t]·values[t], kLanes columns at a time.
template <int G>
FESTINA_INLINE void gather_block(const float* values, std::size_t head_dim, int from, int to,
                                 const Softmax& soft, float* out) {
  for (std::size_t d = 0; d < head_dim; d += kLanes) {
    const std::size_t width = head_dim - d < kLanes ? head_dim - d : kLanes;
    const bool whole = width == kLanes;
    VecF acc[G];
    for (int g = 0; g < G; ++g) {
      const float* at = out + static_cast<std::size_t>(g) * head_dim + d;
      acc[g] = (whole ? load(at) : load_part(at, width)) * soft.shrink[g];
    }
    for (int t = from; t < to; ++t) {
      const float* at = values + static_cast<std::size_t>(t) * head_dim + d;
      const VecF value = whole ? load(at) : load_part(at, width);
      for (int g = 0; g < G; ++g) {
        acc[g] = madd(splat(soft.weights[g * static_cast<int>(kBlockTokens) + t]), value, acc[g]);
      }
    }
    for (int g = 0; g < G; ++g) {
      __builtin_memcpy(out + static_cast<std::size_t>(g) * head_dim + d, &acc[g], width * 4);
    }
  }
}

/// G query heads of one token that share a KV head. `cold`: its blocks are not in the caches yet;
/// they lie apart, so that hardware would fetch each only once its first line is missed.
template <int G>
void attend(const float* q, std::size_t position, const std::int32_t* table, std::size_t kv_head,
            const KvLayer& cache, const AttentionShape& shape, bool cold, float* out,
            float* scratch) {
  const std::size_t head_dim = shape.head_dim;
  const Softmax soft{scratch, scratch + G, scratch + 2 * G, scratch + 3 * G};
  for (int g = 0; g < G; ++g) {
    soft.largest[g] = kMasked;
    soft.total[g] = 0.0F;
  }
  __builtin_memset(out, 0, G * head_dim * 4);
  const std::size_t end = position + 1;
  const std::size_t start = shape.window != 0 && end > shape.window ? end - shape.window : 0;
  for (std::size_t b = start / kBlockTokens; b * kBlockTokens < end; ++b) {
    const std::size_t first = b * kBlockTokens;
    const int from = start > first ? static_cast<int>(start - first) : 0;
    const int to = static_cast<int>(end - first < kBlockTokens ? end - first : kBlockTokens);
    const auto place = [&](std::size_t block, std::size_t head) {
      return (static_cast<std::size_t>(table[block]) * shape.kv_heads + head) * head_dim *
             kBlockTokens;
    };
    NextBlock next{nullptr, nullptr};
    if (cold && first + kBlockTokens < end) {
      const std::size_t then = place(b + 1, kv_head);
      next = {cache.keys + then, cache.values + then};
    } else if (cold && kv_head + 1 < shape.kv_heads) {
      const std::size_t then = place(start / kBlockTokens, kv_head + 1);
      next = {cache.keys + then, cache.values + then};
    }
    const std::size_t at = place(b, kv_head);
    weigh_block<G>(q, head_dim, cache.keys + at, from, to, shape.scale, soft, next);
    gather_block<G>(cache.values + at, head_dim, from, to, soft, out);
  }
  for (int g = 0; g < G; ++g) {
    const float total = soft.total[g];
    float* row = out + static_cast<std::size_t>(g) * head_dim;
    zip(row, row, head_dim, [=](VecF a, VecF) { return a / total; });
  }
}

void attention(const float* q, const BatchView& batch, const KvLayer& cache,
               const AttentionShape& shape, float* out, float* scratch) {
  const std::size_t group = shape.heads / shape.kv_heads;
  for (std::size_t t = 0; t < batch.tokens; ++t) {
    const auto position = static_cast<std::size_t>(batch.positions[t]);
    const std::int32_t* table = batch.blocks + batch.block_offsets[batch.sequences[t]];
    const bool cold = t == 0 || batch.sequences[t] != batch.sequences[t - 1];
    for (std::size_t head = 0; head < shape.heads;) {
      const std::size_t kv_head = head / group, left = group - head % group;
      const std::size_t at = (t * shape.heads + head) * shape.head_dim;
      const auto run = [&]<int G>() {
        attend<G>(q + at, position, table, kv_head, cache, shape, cold, out + at, scratch);
        head += G;
      };
      if (left >= 4) {
        run.template operator()<4>();
      } else if (left == 3) {
        run.template operator()<3>();
      } else if (left == 2) {
        run.template operator()<2>();
      } else {
        run.template operator()<1>();
      }
    }
  }
}

}  // namespace
}  // namespace festina::cpu
