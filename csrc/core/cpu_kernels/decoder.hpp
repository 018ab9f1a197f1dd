#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "core/cpu_kernels/batch.hpp"
#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace festina::cpu {

/// What is the same in all layers of a decoder.
struct DecoderShape {
  std::size_t width;  // of the residual stream
  std::size_t heads;
  std::size_t kv_heads;
  std::size_t head_dim;
  float norm_eps;
  float attention_scale;
  float embedding_scale;  // applied to token embeddings
  Activation activation;
  RopeStyle rope_style;
};

/// One layer. Norm gains are [width], or [head_dim] for q_norm and k_norm; null where the
/// architecture has none.
struct DecoderLayer {
  Weight q, k, v, o, gate, up, down;
  const float* attn_norm;
  const float* ffn_norm;
  const float* q_norm;
  const float* k_norm;
  const float* attn_post_norm;
  const float* ffn_post_norm;
  std::size_t window;  // keys a token sees; 0 = all
  std::size_t rope;    // index into Decoder's frequencies
};

/// A Llama-class decoder (Llama, Gemma 3) over weights and a KV pool that the caller owns and keeps
/// alive. One thread at a time.
class Decoder {
 public:
  /// `frequencies`: inverse frequencies of each kind of rotation, head_dim/2 or fewer values.
  /// `keys`, `values`: pools as in KvShape. `output_norm`: [width].
  Decoder(const Kernels& kernels, const DecoderShape& shape, Weight embedding, Weight output,
          const float* output_norm, std::vector<std::vector<float>> frequencies, float* keys,
          float* values, const KvShape& pool)
      : kernels_(kernels),
        shape_(shape),
        embedding_(embedding),
        output_(output),
        output_norm_(output_norm),
        frequencies_(std::move(frequencies)),
        keys_(keys),
        values_(values),
        pool_(pool) {
    require(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "kv_heads",
            "a divisor of heads", "heads do not share KV heads evenly");
    require(pool.kv_heads == shape.kv_heads && pool.head_dim == shape.head_dim, "keys",
            "the decoder's KV heads and head_dim", "the KV pool has another shape");
    require(pool.layers > 0, "keys", "at least one layer", "an empty KV pool");
    require(embedding.columns == shape.width && output.columns == shape.width, "embedding",
            "columns equal to width", "wrong width");
    for (const auto& f : frequencies_) {
      require(f.size() * 2 <= shape.head_dim, "frequencies", "at most head_dim / 2 values",
              "too many frequencies");
    }
  }

  /// Appends a layer. Throws when its shapes do not fit, or the KV pool has no room for it.
  void add_layer(const DecoderLayer& layer) {
    const std::size_t q_width = shape_.heads * shape_.head_dim;
    const std::size_t kv_width = shape_.kv_heads * shape_.head_dim;
    const std::size_t hidden = layer.gate.rows;
    require(layers_.size() < pool_.layers, "keys", "one pool layer per layer", "too few layers");
    require(layer.rope < frequencies_.size(), "rope", "an index into frequencies", "out of range");
    check_shape(layer.q, "q", q_width, shape_.width);
    check_shape(layer.k, "k", kv_width, shape_.width);
    check_shape(layer.v, "v", kv_width, shape_.width);
    check_shape(layer.o, "o", shape_.width, q_width);
    check_shape(layer.gate, "gate", hidden, shape_.width);
    check_shape(layer.up, "up", hidden, shape_.width);
    check_shape(layer.down, "down", shape_.width, hidden);
    hidden_ = std::max(hidden_, hidden);
    layers_.push_back(layer);
  }

  /// Throws unless there is one layer per layer of the pool.
  void check_complete() const {
    require(layers_.size() == pool_.layers, "layers", "one layer per pool layer", "layers missing");
  }

  [[nodiscard]] std::size_t vocabulary() const { return output_.rows; }

  /// Runs one flat batch: writes keys and values of all tokens, then logits [rows][vocabulary] of
  /// the tokens in `logit_rows`. Throws before writing when an index is out of range.
  void forward(const std::int32_t* token_ids, const BatchView& batch, std::size_t sequences,
               std::size_t table_blocks, const std::int32_t* logit_rows, std::size_t rows,
               float* logits) {
    check_complete();
    check_batch(batch, sequences, table_blocks, pool_.blocks);
    check_ids(token_ids, batch.tokens, embedding_.rows, "token_ids");
    check_ids(logit_rows, rows, batch.tokens, "logit_rows");
    reserve(batch.tokens, rows);
    rotations(batch);
    kernels_.embed(embedding_, token_ids, batch.tokens, shape_.embedding_scale, x_.data());
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
      write_kv(i, batch);
      rest_of_layer(i, batch);
    }
    // Of the last layer only the keys and values of all tokens are needed.
    write_kv(layers_.size() - 1, batch);
    if (rows == 0) return;
    rest_of_layer(layers_.size() - 1, select(batch, logit_rows, rows));
    kernels_.rms_norm(x_.data(), rows, shape_.width, output_norm_, shape_.norm_eps, normed_.data());
    matmul(normed_, rows, output_, logits, false);
  }

 private:
  static void check_shape(const Weight& w, const char* field, std::size_t rows,
                          std::size_t columns) {
    require(w.rows == rows && w.columns == columns, field, "a weight that fits its neighbours",
            "wrong shape");
  }

  void reserve(std::size_t tokens, std::size_t rows) {
    const std::size_t most = std::max(tokens, rows);
    const std::size_t q_width = shape_.heads * shape_.head_dim;
    const std::size_t kv_width = shape_.kv_heads * shape_.head_dim;
    grow(x_, most * shape_.width);
    grow(normed_, most * shape_.width);
    grow(branch_, most * shape_.width);
    grow(q_, most * q_width);
    grow(attended_, most * q_width);
    grow(k_, tokens * kv_width);
    grow(v_, tokens * kv_width);
    grow(gate_, most * hidden_);
    grow(up_, most * hidden_);
    cosines_.resize(frequencies_.size());
    sines_.resize(frequencies_.size());
    grow(scratch_, std::max(matmul_scratch(most, std::max({shape_.width, q_width, hidden_})),
                            attention_scratch(attention_shape(0))));
  }

  static void grow(std::vector<float>& buffer, std::size_t floats) {
    if (buffer.size() < floats) buffer.resize(floats);
  }

  [[nodiscard]] AttentionShape attention_shape(std::size_t window) const {
    return {shape_.heads, shape_.kv_heads, shape_.head_dim, window, shape_.attention_scale};
  }

  [[nodiscard]] KvLayer cache(std::size_t layer) const {
    const std::size_t at = layer * pool_.layer_floats();
    return {keys_ + at, values_ + at};
  }

  /// Cosines and sines of all tokens; angles in fp32, as reference implementations have them.
  void rotations(const BatchView& batch) {
    for (std::size_t f = 0; f < frequencies_.size(); ++f) {
      cosines_[f].clear();
      sines_[f].clear();
      for (std::size_t t = 0; t < batch.tokens; ++t) {
        for (const float frequency : frequencies_[f]) {
          const float angle = static_cast<float>(batch.positions[t]) * frequency;
          cosines_[f].push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
          sines_[f].push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
        }
      }
    }
  }

  void matmul(const std::vector<float>& x, std::size_t n, const Weight& w, float* out,
              bool accumulate) {
    kernels_.matmul(x.data(), n, w, out, accumulate, scratch_.data());
  }

  /// Per-head norm where the architecture has one, then rotation.
  void turn(std::vector<float>& x, std::size_t tokens, std::size_t heads, const float* gain,
            std::size_t rope) {
    if (gain != nullptr) {
      kernels_.rms_norm(x.data(), tokens * heads, shape_.head_dim, gain, shape_.norm_eps, x.data());
    }
    kernels_.rope(x.data(), tokens, heads, shape_.head_dim, frequencies_[rope].size(),
                  cosines_[rope].data(), sines_[rope].data(), shape_.rope_style);
  }

  void write_kv(std::size_t index, const BatchView& batch) {
    const DecoderLayer& layer = layers_[index];
    kernels_.rms_norm(x_.data(), batch.tokens, shape_.width, layer.attn_norm, shape_.norm_eps,
                      normed_.data());
    matmul(normed_, batch.tokens, layer.k, k_.data(), false);
    matmul(normed_, batch.tokens, layer.v, v_.data(), false);
    turn(k_, batch.tokens, shape_.kv_heads, layer.k_norm, layer.rope);
    kernels_.store_kv(k_.data(), v_.data(), batch, shape_.kv_heads, shape_.head_dim, cache(index));
  }

  void rest_of_layer(std::size_t index, const BatchView& batch) {
    const DecoderLayer& layer = layers_[index];
    const std::size_t n = batch.tokens;
    matmul(normed_, n, layer.q, q_.data(), false);
    turn(q_, n, shape_.heads, layer.q_norm, layer.rope);
    kernels_.attention(q_.data(), batch, cache(index), attention_shape(layer.window),
                       attended_.data(), scratch_.data());
    add_branch(attended_, n, layer.o, layer.attn_post_norm);
    kernels_.rms_norm(x_.data(), n, shape_.width, layer.ffn_norm, shape_.norm_eps, normed_.data());
    matmul(normed_, n, layer.gate, gate_.data(), false);
    matmul(normed_, n, layer.up, up_.data(), false);
    kernels_.gate(gate_.data(), up_.data(), n * layer.gate.rows, shape_.activation);
    add_branch(gate_, n, layer.down, layer.ffn_post_norm);
  }

  /// x += norm(branch · w), the norm only where the architecture has one.
  void add_branch(const std::vector<float>& branch, std::size_t n, const Weight& w,
                  const float* gain) {
    if (gain == nullptr) return matmul(branch, n, w, x_.data(), true);
    matmul(branch, n, w, branch_.data(), false);
    kernels_.rms_norm(branch_.data(), n, shape_.width, gain, shape_.norm_eps, branch_.data());
    kernels_.add(x_.data(), branch_.data(), n * shape_.width);
  }

  /// Narrows the step's state to the given tokens.
  BatchView select(const BatchView& batch, const std::int32_t* rows, std::size_t n) {
    positions_.resize(n);
    sequences_.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      positions_[i] = batch.positions[rows[i]];
      sequences_[i] = batch.sequences[rows[i]];
    }
    pick(x_, rows, n, shape_.width);
    pick(normed_, rows, n, shape_.width);
    for (std::size_t f = 0; f < frequencies_.size(); ++f) {
      pick(cosines_[f], rows, n, frequencies_[f].size());
      pick(sines_[f], rows, n, frequencies_[f].size());
    }
    return {n, positions_.data(), sequences_.data(), batch.blocks, batch.block_offsets};
  }

  void pick(std::vector<float>& from, const std::int32_t* rows, std::size_t n, std::size_t width) {
    grow(picked_, n * width);
    for (std::size_t i = 0; i < n; ++i) {
      std::memcpy(picked_.data() + i * width,
                  from.data() + static_cast<std::size_t>(rows[i]) * width, width * sizeof(float));
    }
    grow(from, n * width);
    std::copy_n(picked_.data(), n * width, from.data());
  }

  const Kernels& kernels_;
  DecoderShape shape_;
  Weight embedding_, output_;
  const float* output_norm_;
  std::vector<std::vector<float>> frequencies_;
  float *keys_, *values_;
  KvShape pool_;
  std::vector<DecoderLayer> layers_;
  std::size_t hidden_ = 0;

  // The step's state; buffers grow to the largest step seen and stay.
  std::vector<float> x_, normed_, branch_, q_, k_, v_, attended_, gate_, up_, picked_, scratch_;
  std::vector<std::vector<float>> cosines_, sines_;
  std::vector<std::int32_t> positions_, sequences_;
};

}  // namespace festina::cpu
