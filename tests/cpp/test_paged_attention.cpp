// Paged attention's bodies as host code, thread by thread, against plain sums in double.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "cuda/paged_attention/run.hpp"

namespace {

using festina::cuda::Bf16;
using namespace festina::paged_attention;

template <typename T>
std::vector<T> normal(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  std::vector<T> values(count);
  for (T& value : values) festina::cuda::store(&value, draw(random));
  return values;
}

template <typename T>
void attention_is_that_of_plain_sums(std::uint32_t head_dim, std::uint32_t group,
                                     std::uint32_t splits, double tolerance) {
  const std::vector<std::int32_t> lengths = {1, 0, 17, 1100};
  const std::uint32_t kv_heads = 2;
  const std::uint32_t width = 69;
  const std::size_t layer = std::size_t{kv_heads} * head_dim * block_tokens;
  const std::uint64_t stride = 2 * layer;
  const std::vector<T> pool = normal<T>(stride * width * 2, 1);
  std::vector<std::int32_t> tables(lengths.size() * width);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    tables[i] = static_cast<std::int32_t>(i * 7 % (width * 2));
  }
  const Shape shape{static_cast<std::uint32_t>(lengths.size()),
                    kv_heads,
                    group,
                    head_dim,
                    width,
                    0,
                    splits,
                    0.25F,
                    stride,
                    std::uint64_t{kv_heads} * group * head_dim};
  const std::vector<T> q = normal<T>(lengths.size() * shape.q_stride, 2);
  std::vector<float> scratch(shape.scratch());
  std::vector<T> out(q.size());
  run_host(shape, Arrays<T>{q.data(), pool.data(), pool.data() + layer, tables.data(),
                            lengths.data(), scratch.data(), out.data()});
  for (std::size_t row = 0; row < lengths.size() * shape.heads(); ++row) {
    const std::size_t sequence = row / shape.heads();
    const std::size_t head = row % shape.heads() / group * head_dim * block_tokens;
    std::vector<double> sums(head_dim);
    double total = 0.0;
    for (std::int32_t token = 0; token < lengths[sequence]; ++token) {
      const auto place = static_cast<std::size_t>(token) % block_tokens;
      const auto entry = sequence * width + static_cast<std::size_t>(token) / block_tokens;
      const std::size_t block = static_cast<std::size_t>(tables[entry]) * stride + head;
      double score = 0.0;
      for (std::size_t i = 0; i < head_dim; ++i) {
        const T key = pool[block + i / 8 * block_tokens * 8 + place * 8 + i % 8];
        score += static_cast<double>(to_float(q[row * head_dim + i])) * to_float(key);
      }
      const double weight = std::exp(score * 0.25);
      total += weight;
      for (std::size_t i = 0; i < head_dim; ++i) {
        sums[i] += weight * to_float(pool[layer + block + place * head_dim + i]);
      }
    }
    for (std::size_t i = 0; i < head_dim; ++i) {
      const double expected = total > 0.0 ? sums[i] / total : 0.0;
      CHECK(std::abs(to_float(out[row * head_dim + i]) - expected) < tolerance);
    }
  }
}

void the_exponential_is_close_below_zero() {
  for (float x = -86.9F; x <= 0.0F; x += 0.013F) {
    const double expected = std::exp(static_cast<double>(x));
    CHECK(std::abs(festina::cuda::exp_negative(x) - expected) < 2e-7 * expected);
  }
  CHECK_EQ(festina::cuda::exp_negative(0.0F), 1.0F);
  CHECK_EQ(festina::cuda::exp_negative(-INFINITY), 0.0F);
}

void bf16_is_the_nearest_ties_to_even() {
  const auto rounded = [](float value) {
    Bf16 stored{};
    festina::cuda::store(&stored, value);
    return stored.bits;
  };
  CHECK_EQ(rounded(1.0F), 0x3f80);
  CHECK_EQ(rounded(1.00390625F), 0x3f80);  // half-way, down to even
  CHECK_EQ(rounded(1.01171875F), 0x3f82);  // half-way, up to even
  CHECK_EQ(rounded(-INFINITY), 0xff80);
  CHECK(std::isnan(to_float(Bf16{rounded(NAN)})));
}

}  // namespace

int main() {
  the_exponential_is_close_below_zero();
  bf16_is_the_nearest_ties_to_even();
  for (const std::uint32_t splits : {1U, 3U}) {
    attention_is_that_of_plain_sums<float>(64, 3, splits, 1e-5);
    attention_is_that_of_plain_sums<float>(256, 1, splits, 1e-4);
    attention_is_that_of_plain_sums<Bf16>(80, 9, splits, 2e-2);
  }
}
