#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

// Reads memory and writes next to nothing: the floor of whatever has to read it.

namespace festina::bandwidth {

struct alignas(16) Word {
  std::uint32_t parts[4];
};

struct Read {
  const Word* words;
  std::size_t count;
  std::uint32_t* folded;  // takes the exclusive or of all parts, of which nothing can be left out
};

constexpr unsigned threads = 256;
constexpr unsigned at_once = 4;  // words that a thread has on their way

// What thread `thread` of `all` reads, folded. Neighbours read neighbouring words.
FESTINA_HOST_DEVICE inline std::uint32_t fold_share(const Read& read, std::size_t thread,
                                                    std::size_t all) {
  std::uint32_t folded = 0;
  for (std::size_t start = thread; start < read.count; start += all * at_once) {
    Word words[at_once];
    FESTINA_UNROLL
    for (unsigned i = 0; i < at_once; ++i) {
      const std::size_t at = start + i * all;
      words[i] = at < read.count ? read.words[at] : Word{};
    }
    FESTINA_UNROLL
    for (const Word& word : words) {
      folded ^= word.parts[0] ^ word.parts[1] ^ word.parts[2] ^ word.parts[3];
    }
  }
  return folded;
}

// As host code, for tests.
inline void run_host(const Read& read, std::size_t all) {
  for (std::size_t thread = 0; thread < all; ++thread) {
    *read.folded ^= fold_share(read, thread, all);
  }
}

}  // namespace festina::bandwidth
