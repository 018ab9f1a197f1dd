#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cuda/kv_copy/merge.hpp"

// The same copy between pools in host memory, on the calling thread.

namespace festina::kv_copy {

// From this much on, what is written is not worth room in the caches: it is not read again soon,
// and a line that goes straight to memory needs not be fetched first.
constexpr std::uint64_t streamed_min = 8 * 1024 * 1024;

#if defined(__SSE2__)
// Copies past the caches. The hardware's prefetch stops at the end of a page and knows nothing of
// `next`, the run to come after this one: both are asked for here, a page ahead.
inline void copy_streamed(const std::byte* src, std::byte* dst, std::uint64_t size,
                          std::span<const std::byte> next) {
  constexpr std::uint64_t ahead = 4096;
  constexpr std::uint64_t line = 64;
  const auto prefetch = [&](std::uint64_t offset) {
    if (offset < size) {
      _mm_prefetch(reinterpret_cast<const char*>(src + offset), _MM_HINT_T0);
    } else if (offset - size < next.size()) {
      _mm_prefetch(reinterpret_cast<const char*>(next.data() + (offset - size)), _MM_HINT_T0);
    }
  };
  const auto move = [&](std::uint64_t offset) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + offset),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + offset)));
  };
  std::uint64_t i = 0;
  for (; i + line <= size; i += line) {
    prefetch(i + ahead);
    move(i);
    move(i + 16);
    move(i + 32);
    move(i + 48);
  }
  for (; i < size; i += sizeof(Word)) {
    move(i);
  }
}
#endif

// Throws std::out_of_range naming the bad descriptor; then nothing was copied.
inline void copy_host(std::span<const std::byte> src, std::span<std::byte> dst,
                      std::span<const Descriptor> runs) {
  check(runs, src.size(), dst.size());
  const std::vector<Descriptor> merged = merge(runs);
#if defined(__SSE2__)
  std::uint64_t total = 0;
  for (const Descriptor& run : merged) {
    total += run.size;
  }
  if (total >= streamed_min && reinterpret_cast<std::uintptr_t>(dst.data()) % sizeof(Word) == 0) {
    for (std::size_t i = 0; i < merged.size(); ++i) {
      const Descriptor& run = merged[i];
      const Descriptor& next = merged[std::min(i + 1, merged.size() - 1)];
      copy_streamed(src.data() + run.src_offset, dst.data() + run.dst_offset, run.size,
                    src.subspan(next.src_offset, next.size));
    }
    _mm_sfence();
    return;
  }
#endif
  for (const Descriptor& run : merged) {
    std::memcpy(dst.data() + run.dst_offset, src.data() + run.src_offset, run.size);
  }
}

}  // namespace festina::kv_copy
