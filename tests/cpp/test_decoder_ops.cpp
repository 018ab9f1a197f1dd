// The decoder's small operations as host code, thread by thread, against plain sums in double.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "cuda/decoder_ops/run.hpp"

namespace {

using festina::cuda::Bf16;
using namespace festina::decoder_ops;

template <typename T>
std::vector<T> normal(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  std::vector<T> values(count);
  for (T& value : values) festina::cuda::store(&value, draw(random));
  return values;
}

template <typename T>
void rows_are_added_and_normed(std::uint32_t width, double tolerance) {
  const std::uint32_t rows = 3;
  std::vector<T> x = normal<T>(rows * width, 1);
  const std::vector<T> before = x;
  const std::vector<T> update = normal<T>(rows * width, 2);
  const std::vector<float> gain = normal<float>(width, 3);
  std::vector<T> out(rows * width);
  run_host(Norm<T>{rows, width, 1e-5F, x.data(), update.data(), gain.data(), out.data()});
  for (std::size_t row = 0; row < rows; ++row) {
    double squares = 0.0;
    for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
      const double sum = static_cast<double>(to_float(before[i])) + to_float(update[i]);
      CHECK(std::abs(to_float(x[i]) - sum) <= tolerance * std::abs(sum) + 1e-6);
      squares += static_cast<double>(to_float(x[i])) * to_float(x[i]);
    }
    const double factor = 1.0 / std::sqrt(squares / width + 1e-5);
    for (std::size_t i = 0; i < width; ++i) {
      const double expected = to_float(x[row * width + i]) * factor * gain[i];
      const double got = to_float(out[row * width + i]);
      CHECK(std::abs(got - expected) <= tolerance * std::abs(expected) + 1e-6);
    }
  }
}

void gates_open_as_their_activation_says() {
  const std::vector<float> gate_up = normal<float>(2 * 48, 4);
  std::vector<float> out(48);
  for (const bool gelu : {false, true}) {
    run_host(Gate<float>{2, 24, gelu, gate_up.data(), out.data()});
    for (std::size_t i = 0; i < 48; ++i) {
      const double x = gate_up[i / 24 * 48 + i % 24];
      const double up = gate_up[i / 24 * 48 + 24 + i % 24];
      const double inner = std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x);
      const double open = gelu ? 0.5 * x * (1.0 + std::tanh(inner)) : x / (1.0 + std::exp(-x));
      CHECK(std::abs(out[i] - open * up) < 1e-5);
    }
  }
}

void heads_turn_and_are_cached(bool halves, bool normed) {
  constexpr std::uint32_t head_dim = 16;
  constexpr std::uint32_t queries = 2;
  constexpr std::uint32_t pairs = 6;  // four components stay
  const std::vector<std::int32_t> slots = {5, 16 + 15};
  const std::uint32_t width = (queries + 2) * head_dim;
  std::vector<float> qkv = normal<float>(2 * width, 5);
  const std::vector<float> before = qkv;
  const std::vector<float> gain = normal<float>(head_dim, 6);
  std::vector<float> cosines;
  std::vector<float> sines;
  for (std::uint32_t i = 0; i < 2 * pairs; ++i) {
    cosines.push_back(std::cos(0.3F * static_cast<float>(i)));
    sines.push_back(std::sin(0.3F * static_cast<float>(i)));
  }
  const std::uint64_t stride = 2 * head_dim * block_tokens;
  std::vector<float> pool(2 * stride);
  const float* gains = normed ? gain.data() : nullptr;
  run_host(Rotate<float>{2, queries, 1, head_dim, pairs, halves, 1e-5F, stride, qkv.data(),
                         cosines.data(), sines.data(), gains, gains, slots.data(), pool.data(),
                         pool.data() + head_dim * block_tokens});
  for (std::size_t row = 0; row < 2; ++row) {
    const auto slot = static_cast<std::size_t>(slots[row]);
    const float* block = pool.data() + slot / block_tokens * stride;
    const std::size_t place = slot % block_tokens;
    for (std::size_t head = 0; head <= queries; ++head) {
      const float* from = before.data() + row * width + head * head_dim;
      double squares = 0.0;
      for (std::size_t i = 0; i < head_dim; ++i) squares += static_cast<double>(from[i]) * from[i];
      const double factor = normed ? 1.0 / std::sqrt(squares / head_dim + 1e-5) : 1.0;
      const auto input = [&](std::size_t i) { return from[i] * factor * (normed ? gain[i] : 1.0); };
      for (std::size_t i = 0; i < head_dim; ++i) {
        double expected = input(i);
        if (i < 2 * pairs) {
          const std::size_t pair = halves ? i % pairs : i / 2;
          const bool second = halves ? i >= pairs : i % 2 == 1;
          const std::size_t other = halves ? (second ? i - pairs : i + pairs) : i ^ 1U;
          const double sine = sines[row * pairs + pair] * (second ? 1.0 : -1.0);
          expected = input(i) * cosines[row * pairs + pair] + input(other) * sine;
        }
        const double got = head < queries ? qkv[row * width + head * head_dim + i]
                                          : block[i / 8 * block_tokens * 8 + place * 8 + i % 8];
        CHECK(std::abs(got - expected) < 1e-5);
      }
    }
    for (std::size_t i = 0; i < head_dim; ++i) {
      CHECK_EQ(block[head_dim * block_tokens + place * head_dim + i],
               before[row * width + (queries + 1) * head_dim + i]);
    }
  }
}

}  // namespace

int main() {
  rows_are_added_and_normed<float>(64, 1e-5);
  rows_are_added_and_normed<float>(5120, 1e-5);
  rows_are_added_and_normed<Bf16>(4104, 8e-3);
  gates_open_as_their_activation_says();
  for (const bool halves : {false, true}) {
    heads_turn_and_are_cached(halves, false);
    heads_turn_and_are_cached(halves, true);
  }
}
