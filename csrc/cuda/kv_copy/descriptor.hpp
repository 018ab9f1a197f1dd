#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

// The unit of a batched KV-cache copy: one run of bytes from one pool to another. Offsets are in
// bytes from the pools' bases, so a table means the same in every process that maps the pools.

namespace festina::kv_copy {

struct Descriptor {
  std::uint64_t src_offset;
  std::uint64_t dst_offset;
  std::uint64_t size;
};
static_assert(sizeof(Descriptor) == 24 && alignof(Descriptor) == 8);

// Sixteen bytes that move as one access; without the alignment they would be two.
struct alignas(16) Word {
  std::uint64_t lo;
  std::uint64_t hi;
};
static_assert(sizeof(Word) == 16);

// What lane `lane` of `lanes` moves of one descriptor. The same body runs on the GPU and, in tests,
// as host code. Offsets and size are multiples of sizeof(Word). Four loads are on their way before
// the first store: one alone would leave most of the memory's bandwidth unused.
FESTINA_HOST_DEVICE inline void copy_lane(const std::byte* src, std::byte* dst,
                                          const Descriptor& run, std::uint64_t lane,
                                          std::uint64_t lanes) {
  const auto* from = reinterpret_cast<const Word*>(src + run.src_offset);
  auto* to = reinterpret_cast<Word*>(dst + run.dst_offset);
  const std::uint64_t words = run.size / sizeof(Word);
  std::uint64_t i = lane;
  for (; i + 3 * lanes < words; i += 4 * lanes) {
    const Word first = from[i];
    const Word second = from[i + lanes];
    const Word third = from[i + 2 * lanes];
    const Word fourth = from[i + 3 * lanes];
    to[i] = first;
    to[i + lanes] = second;
    to[i + 2 * lanes] = third;
    to[i + 3 * lanes] = fourth;
  }
  for (; i < words; i += lanes) {
    to[i] = from[i];
  }
}

}  // namespace festina::kv_copy
