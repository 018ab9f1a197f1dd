#pragma once
#include <cstddef>
#include <cstdint>

// The unit of a batched KV-cache copy: one run of bytes from one pool to another. Offsets are in
// bytes from the pools' bases, so a table means the same in every process that maps the pools.

#if defined(__CUDACC__)
#define FESTINA_HOST_DEVICE __host__ __device__
#else
#define FESTINA_HOST_DEVICE
#endif

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

// What lane `lane` of `lanes` moves of one descriptor. The same body runs on the GPU and, in tests
// and on the CPU path, as host code. Offsets and size are multiples of sizeof(Word).
FESTINA_HOST_DEVICE inline void copy_lane(const std::byte* src, std::byte* dst,
                                          const Descriptor& run, std::uint64_t lane,
                                          std::uint64_t lanes) {
  const auto* from = reinterpret_cast<const Word*>(src + run.src_offset);
  auto* to = reinterpret_cast<Word*>(dst + run.dst_offset);
  for (std::uint64_t i = lane; i < run.size / sizeof(Word); i += lanes) {
    to[i] = from[i];
  }
}

}  // namespace festina::kv_copy
