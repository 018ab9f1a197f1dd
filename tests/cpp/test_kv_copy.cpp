// The body of the copy kernel as host code, lane by lane, against the host path.
#include <array>
#include <cstddef>
#include <vector>

#include "check.hpp"
#include "cuda/kv_copy/merge.hpp"

namespace {

using festina::kv_copy::Descriptor;
using festina::kv_copy::Word;

constexpr std::size_t kBytes = 64 * sizeof(Word);

struct alignas(16) Pool {
  std::array<std::byte, kBytes> bytes{};
};

Pool counted(unsigned step) {
  Pool pool;
  for (std::size_t i = 0; i < kBytes; ++i) pool.bytes[i] = static_cast<std::byte>(i * step + 1);
  return pool;
}

void lanes_together_copy_every_run() {
  const Pool src = counted(7);
  const std::vector<Descriptor> runs = {{0, 512, 16}, {16, 64, 160}, {512, 240, 256}};
  for (const std::uint64_t lanes : {1U, 3U, 32U, 256U}) {
    Pool by_lanes = counted(3);
    Pool by_host = counted(3);
    for (const Descriptor& run : runs) {
      for (std::uint64_t lane = 0; lane < lanes; ++lane) {
        festina::kv_copy::copy_lane(src.bytes.data(), by_lanes.bytes.data(), run, lane, lanes);
      }
    }
    festina::kv_copy::copy_host(src.bytes, by_host.bytes, runs);
    CHECK(by_lanes.bytes == by_host.bytes);
  }
}

void runs_merge_only_where_both_sides_go_on() {
  const std::vector<Descriptor> runs = {{0, 64, 16}, {16, 80, 16}, {32, 128, 16}, {64, 144, 16}};
  const auto merged = festina::kv_copy::merge(runs);
  CHECK_EQ(merged.size(), std::size_t{3});
  CHECK_EQ(merged[0].size, std::uint64_t{32});
  CHECK_EQ(merged[1].src_offset, std::uint64_t{32});
  CHECK_EQ(merged[2].src_offset, std::uint64_t{64});
}

}  // namespace

int main() {
  lanes_together_copy_every_run();
  runs_merge_only_where_both_sides_go_on();
}
