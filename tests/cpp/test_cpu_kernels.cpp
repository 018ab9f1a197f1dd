// The CPU kernels on exactly sized heap buffers, so that a sanitizer sees any step outside them.
// Values are checked against plain loops; tests/unit compares all formats with numpy.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/cpu_kernels/decoder.hpp"
#include "core/cpu_kernels/kernels.hpp"
#include "core/cpu_kernels/make_weight.hpp"

namespace {

using namespace festina::cpu;

constexpr WeightType kTypes[] = {WeightType::kF32,  WeightType::kF16,  WeightType::kBF16,
                                 WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                                 WeightType::kQ5_1, WeightType::kQ8_0, WeightType::kQ4_K,
                                 WeightType::kQ5_K, WeightType::kQ6_K};

struct Matrix {
  std::vector<std::uint8_t> data;
  Weight weight;
};

/// Random bytes are finite values in every format once each 16-bit word has small exponent bits.
Matrix random_matrix(std::mt19937& rng, WeightType type, std::size_t rows, std::size_t columns) {
  const BlockShape block = block_shape(type);
  Matrix m{std::vector<std::uint8_t>(rows * columns / block.values * block.bytes), {}};
  for (auto& byte : m.data) byte = static_cast<std::uint8_t>(rng() % 0x38);
  m.weight =
      make_weight(m.data.data(), m.data.size(), static_cast<std::uint32_t>(type), rows, columns);
  return m;
}

std::vector<float> random_floats(std::mt19937& rng, std::size_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> v(n);
  for (auto& x : v) x = normal(rng);
  return v;
}

std::size_t columns_of(WeightType type) {
  const std::size_t values = block_shape(type).values;
  return values == 1 ? 37 : values * 2;
}

void products_equal_plain_loops(const Kernels& kernels) {
  std::mt19937 rng(1);
  for (const WeightType type : kTypes) {
    const std::size_t rows = 51, k = columns_of(type);
    const Matrix m = random_matrix(rng, type, rows, k);
    std::vector<float> w(rows * k);
    std::vector<std::int32_t> all(rows);
    for (std::size_t r = 0; r < rows; ++r) all[r] = static_cast<std::int32_t>(r);
    kernels.embed(m.weight, all.data(), rows, 1.0F, w.data());
    for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{4},
                                std::size_t{5}, std::size_t{23}}) {
      const std::vector<float> x = random_floats(rng, n * k);
      std::vector<float> out(n * rows), scratch(matmul_scratch(n, k));
      kernels.matmul(x.data(), n, m.weight, out.data(), false, scratch.data());
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t r = 0; r < rows; ++r) {
          double exact = 0, size = 0;
          for (std::size_t c = 0; c < k; ++c) {
            const double term =
                static_cast<double>(x[i * k + c]) * static_cast<double>(w[r * k + c]);
            exact += term;
            size += std::abs(term);
          }
          CHECK(std::abs(static_cast<double>(out[i * rows + r]) - exact) <= 2e-6 * size + 1e-30);
        }
      }
    }
  }
}

/// A decoder of one layer whose buffers end where they should.
void a_step_stays_in_its_buffers(const Kernels& kernels) {
  std::mt19937 rng(2);
  constexpr std::size_t kWidth = 32, kHeads = 3, kDim = 32, kHidden = 64, kVocabulary = 40;
  const auto matrix = [&](std::size_t rows, std::size_t columns) {
    return random_matrix(rng, WeightType::kQ8_0, rows, columns);
  };
  const Matrix embedding = matrix(kVocabulary, kWidth), q = matrix(kHeads * kDim, kWidth),
               k = matrix(kDim, kWidth), v = matrix(kDim, kWidth),
               o = matrix(kWidth, kHeads * kDim), gate = matrix(kHidden, kWidth),
               up = matrix(kHidden, kWidth), down = matrix(kWidth, kHidden);
  const std::vector<float> gain(kWidth, 1.0F);
  const KvShape pool{1, 4, 1, kDim};
  std::vector<float> keys(pool.layer_floats()), values(pool.layer_floats());
  const DecoderShape shape{
      kWidth, kHeads, 1, kDim, 1e-5F, 0.1F, 1.0F, Activation::kSilu, RopeStyle::kInterleaved};
  Decoder decoder(kernels, shape, embedding.weight, embedding.weight, gain.data(),
                  {std::vector<float>(kDim / 2, 0.5F)}, keys.data(), values.data(), pool);
  decoder.add_layer({q.weight, k.weight, v.weight, o.weight, gate.weight, up.weight, down.weight,
                     gain.data(), gain.data(), nullptr, nullptr, nullptr, nullptr, 0, 0});
  const std::vector<std::int32_t> blocks{3, 1}, offsets{0, 2}, rows{16};
  std::vector<std::int32_t> ids(17), positions(17), sequences(17, 0);
  for (std::size_t i = 0; i < 17; ++i) positions[i] = ids[i] = static_cast<std::int32_t>(i);
  std::vector<float> logits(kVocabulary);
  const BatchView batch{17, positions.data(), sequences.data(), blocks.data(), offsets.data()};
  decoder.forward(ids.data(), batch, 1, 2, rows.data(), 1, logits.data());
  for (const float logit : logits) CHECK(std::isfinite(logit));

  positions[16] = 32;
  bool refused = false;
  try {
    decoder.forward(ids.data(), batch, 1, 2, rows.data(), 1, logits.data());
  } catch (const KernelError& error) {
    refused = error.field == "positions";
  }
  CHECK(refused);
}

}  // namespace

int main() {
  const KernelList all = available_kernels();
  CHECK(all.size > 0);
  for (std::size_t i = 0; i < all.size; ++i) {
    products_equal_plain_loops(*all.begin[i]);
    a_step_stays_in_its_buffers(*all.begin[i]);
  }
  return 0;
}
