#pragma once
#include "cuda/numbers.hpp"
#include "cuda/paged_attention/state.hpp"
#include "cuda/paged_attention/types.hpp"

// One thread block of paged attention, as phases between which all threads wait for each other. A
// phase is a function of one thread: the kernel calls it for its own, a host test for all in turn.
//
// Per tile of tokens: `score` (each thread its own tokens), `fold_highest`, `weigh`, `gather` (each
// thread eight components of a slice of tokens). At the end `spread` and `collect`, per head.

namespace festina::paged_attention {

using cuda::load8;
using cuda::to_float;

template <typename T, std::uint32_t Heads>
class Block {
 public:
  FESTINA_HOST_DEVICE Block(const Shape& shape, const Arrays<T>& arrays, const Place& place,
                            Shared<Heads>& shared)
      : shape_(shape), arrays_(arrays), place_(place), shared_(shared) {
    const auto length = static_cast<std::uint32_t>(arrays.lengths[place.sequence]);
    const std::uint32_t first =
        shape.window != 0 && length > shape.window ? length - shape.window : 0;
    const std::uint32_t block = first / block_tokens;
    const std::uint32_t blocks = (length + block_tokens - 1) / block_tokens - block;
    const std::uint32_t each = (blocks + shape.splits - 1) / shape.splits;
    begin_ = (block + place.split * each) * block_tokens;
    end_ = begin_ + each * block_tokens;
    end_ = end_ < length ? end_ : length;
    first_ = first;
    head_ = place.kv_head * shape.group + place.share * Heads;
    const std::uint32_t left = shape.group - place.share * Heads;
    heads_ = left < Heads ? left : Heads;
    table_ = arrays.tables + std::size_t{place.sequence} * shape.table_width;
  }

  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t begin() const { return begin_; }
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t end() const { return end_; }
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t heads() const { return heads_; }

  FESTINA_HOST_DEVICE void start(std::uint32_t thread, Thread<Heads>& own) const {
    FESTINA_UNROLL
    for (std::uint32_t h = 0; h < Heads; ++h) {
      own.highest[h] = lowest;
      own.rescale[h] = 0.0F;
      FESTINA_UNROLL
      for (float& sum : own.sums[h]) sum = 0.0F;
    }
    own.total = 0.0F;
    const T* q =
        arrays_.q + place_.sequence * shape_.q_stride + std::size_t{head_} * shape_.head_dim;
    for (std::uint32_t i = thread; i < Heads * shape_.head_dim; i += threads) {
      const std::uint32_t h = i / shape_.head_dim;
      const float value = h < heads_ ? to_float(q[i]) * shape_.scale : 0.0F;
      shared_.q[h][i - h * shape_.head_dim] = value;
    }
  }

  // Products of the queries with the keys of this thread's tokens of the tile at `base`.
  FESTINA_HOST_DEVICE void score(std::uint32_t thread, Thread<Heads>& own,
                                 std::uint32_t base) const {
    settle(thread, own);
    float scores[tokens_each][Heads] = {};
    const T* keys[tokens_each];
    bool seen[tokens_each];
    FESTINA_UNROLL
    for (std::uint32_t j = 0; j < tokens_each; ++j) {
      const std::uint32_t token = base + j * threads + thread;
      seen[j] = token >= first_ && token < end_;
      keys[j] = seen[j] ? key(token) : nullptr;
    }
    for (std::uint32_t at = 0; at < shape_.head_dim; at += 8) {
      FESTINA_UNROLL
      for (std::uint32_t j = 0; j < tokens_each; ++j) {
        if (!seen[j]) continue;
        float part[8];
        load8(keys[j] + std::size_t{at} * block_tokens, part);
        FESTINA_UNROLL
        for (std::uint32_t h = 0; h < Heads; ++h) {
          FESTINA_UNROLL
          for (std::uint32_t i = 0; i < 8; ++i) {
            scores[j][h] = fmaf(shared_.q[h][at + i], part[i], scores[j][h]);
          }
        }
      }
    }
    FESTINA_UNROLL
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float high = lowest;
      FESTINA_UNROLL
      for (std::uint32_t j = 0; j < tokens_each; ++j) {
        const float value = seen[j] ? scores[j][h] : lowest;
        shared_.scores[h][j * threads + thread] = value;
        high = fmaxf(high, value);
      }
      shared_.parts[h][thread] = high;
    }
  }

  FESTINA_HOST_DEVICE void fold_highest(std::uint32_t thread) const {
    if (thread >= Heads * folds) return;
    const float* part = folded_part(thread);
    float high = part[0];
    for (std::uint32_t i = 1; i < threads / folds; ++i) high = fmaxf(high, part[i]);
    shared_.folded[thread / folds][thread % folds] = high;
  }

  // Scores to weights, relative to the highest score so far.
  FESTINA_HOST_DEVICE void weigh(std::uint32_t thread, Thread<Heads>& own) const {
    FESTINA_UNROLL
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float high = own.highest[h];
      for (std::uint32_t i = 0; i < folds; ++i) high = fmaxf(high, shared_.folded[h][i]);
      own.rescale[h] = exp_negative(own.highest[h] - high);
      own.highest[h] = high;
      float total = 0.0F;
      FESTINA_UNROLL
      for (std::uint32_t j = 0; j < tokens_each; ++j) {
        float& score = shared_.scores[h][j * threads + thread];
        score = exp_negative(score - high);
        total += score;
      }
      shared_.parts[h][thread] = total;
    }
  }

  // Weighted values of a slice of the tile's tokens; and the weights' sums are folded.
  FESTINA_HOST_DEVICE void gather(std::uint32_t thread, Thread<Heads>& own,
                                  std::uint32_t base) const {
    fold_totals(thread);
    FESTINA_UNROLL
    for (std::uint32_t h = 0; h < Heads; ++h) {
      FESTINA_UNROLL
      for (float& sum : own.sums[h]) sum *= own.rescale[h];
    }
    if (thread >= columns() * slices()) return;
    const std::uint32_t column = thread % columns();
    const std::uint32_t tokens = end_ - base < tile ? end_ - base : tile;
    for (std::uint32_t i = thread / columns(); i < tokens; i += slices()) {
      if (base + i < first_) continue;
      float part[8];
      load8(value(base + i) + std::size_t{column} * 8, part);
      FESTINA_UNROLL
      for (std::uint32_t h = 0; h < Heads; ++h) {
        const float weight = shared_.scores[h][i];
        FESTINA_UNROLL
        for (std::uint32_t k = 0; k < 8; ++k)
          own.sums[h][k] = fmaf(weight, part[k], own.sums[h][k]);
      }
    }
  }

  FESTINA_HOST_DEVICE void finish(std::uint32_t thread, Thread<Heads>& own) const {
    settle(thread, own);
    if (thread < Heads) shared_.totals[thread] = own.total;
  }

  FESTINA_HOST_DEVICE void spread(std::uint32_t thread, const Thread<Heads>& own,
                                  std::uint32_t h) const {
    if (thread >= columns() * slices()) return;
    FESTINA_UNROLL
    for (std::uint32_t k = 0; k < 8; ++k) shared_.spread[thread * 8 + k] = own.sums[h][k];
  }

  // The slices of a head together: the result, or this split's part of it.
  FESTINA_HOST_DEVICE void collect(std::uint32_t thread, const Thread<Heads>& own,
                                   std::uint32_t h) const {
    const std::size_t row = std::size_t{place_.sequence} * shape_.heads() + head_ + h;
    const float total = shared_.totals[h];
    for (std::uint32_t i = thread; i < shape_.head_dim; i += threads) {
      float sum = 0.0F;
      for (std::uint32_t s = 0; s < slices(); ++s) sum += shared_.spread[s * columns() * 8 + i];
      if (shape_.splits == 1) {
        cuda::store(arrays_.out + row * shape_.head_dim + i, total > 0.0F ? sum / total : 0.0F);
      } else {
        part(row)[i] = sum;
      }
    }
    if (shape_.splits > 1 && thread == 0) {
      part(row)[shape_.head_dim] = own.highest[h];
      part(row)[shape_.head_dim + 1] = total;
    }
  }

 private:
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t columns() const { return shape_.head_dim / 8; }
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t slices() const { return threads / columns(); }

  [[nodiscard]] FESTINA_HOST_DEVICE float* part(std::size_t row) const {
    return arrays_.scratch + (row * shape_.splits + place_.split) * (shape_.head_dim + 2);
  }

  // Elements from the pool's base to the head's part of the token's block.
  [[nodiscard]] FESTINA_HOST_DEVICE std::size_t block_of(std::uint32_t token) const {
    const auto block = static_cast<std::size_t>(table_[token / block_tokens]);
    return block * shape_.block_stride +
           std::size_t{place_.kv_head} * shape_.head_dim * block_tokens;
  }
  [[nodiscard]] FESTINA_HOST_DEVICE const T* key(std::uint32_t token) const {
    return arrays_.keys + block_of(token) + std::size_t{token % block_tokens} * 8;
  }
  [[nodiscard]] FESTINA_HOST_DEVICE const T* value(std::uint32_t token) const {
    return arrays_.values + block_of(token) + std::size_t{token % block_tokens} * shape_.head_dim;
  }

  [[nodiscard]] FESTINA_HOST_DEVICE const float* folded_part(std::uint32_t thread) const {
    return &shared_.parts[thread / folds][thread % folds * (threads / folds)];
  }

  FESTINA_HOST_DEVICE void fold_totals(std::uint32_t thread) const {
    if (thread >= Heads * folds) return;
    const float* part = folded_part(thread);
    float total = 0.0F;
    for (std::uint32_t i = 0; i < threads / folds; ++i) total += part[i];
    shared_.folded[thread / folds][thread % folds] = total;
  }

  // Takes in the folded sums of the tile before, if there was one.
  FESTINA_HOST_DEVICE void settle(std::uint32_t thread, Thread<Heads>& own) const {
    if (thread >= Heads || own.highest[0] == lowest) return;
    float total = 0.0F;
    for (std::uint32_t i = 0; i < folds; ++i) total += shared_.folded[thread][i];
    float rescale = 0.0F;  // own.rescale[thread], without an index that the compiler cannot see
    FESTINA_UNROLL
    for (std::uint32_t h = 0; h < Heads; ++h) rescale = h == thread ? own.rescale[h] : rescale;
    own.total = fmaf(own.total, rescale, total);
  }

  const Shape& shape_;
  const Arrays<T>& arrays_;
  const Place& place_;
  Shared<Heads>& shared_;
  const std::int32_t* table_;
  std::uint32_t begin_;  // of the split, at a block's first token
  std::uint32_t end_;
  std::uint32_t first_;  // token that is seen
  std::uint32_t head_;   // first query head
  std::uint32_t heads_;  // query heads that there are
};

}  // namespace festina::paged_attention
