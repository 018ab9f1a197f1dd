#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"

// Steps as engines form them that batch continuously (Orca, vLLM): all requests that decode take
// part in each step, and prompts join first come, first served.
namespace festina::simulator {

// How much a step holds, beside the sequences of `Setup::batch_max`.
struct BatchLimits {
  double tokens = 1024;  // decodes included; longer prompts run in chunks (arXiv 2403.02310)
};

inline int decodes_of(const Cluster& c, const Lane& l) {
  return static_cast<int>(
      std::min(l.running.size(), static_cast<std::size_t>(c.setup().batch_max)));
}

// Waiting prompts in order of arrival, up to `tokens` and `sequences`. The first that finds no room
// for its cache ends the batch: nobody overtakes.
inline std::vector<Chunk> next_prompts(const Cluster& c, const Gpu& g, const Lane& l, int tokens,
                                       int sequences) {
  std::vector<Chunk> chunks;
  double room_bytes = c.memory_free_bytes(g);
  for (const int r : l.waiting) {
    if (tokens <= 0 || static_cast<int>(chunks.size()) >= sequences) break;
    const double need_bytes = c.admitted(r) ? 0 : c.expected_kv_bytes(r);
    const bool fits = need_bytes <= room_bytes || (chunks.empty() && c.has_room(g, r));
    if (!fits) break;
    room_bytes -= need_bytes;
    chunks.push_back({r, std::min(tokens, c.request(r).uncached())});
    tokens -= chunks.back().tokens;
  }
  return chunks;
}

// Starts the lane's next step on `rung`: its decodes, and prompts in what they leave of the limits.
// False: there is nothing to do.
inline bool start_iteration(Cluster& c, Gpu& g, Lane& l, const BatchLimits& limits, int rung) {
  const int decodes = decodes_of(c, l);
  std::vector<Chunk> chunks = next_prompts(c, g, l, static_cast<int>(limits.tokens) - decodes,
                                           c.setup().batch_max - decodes);
  if (decodes == 0 && chunks.empty()) return false;
  c.start(g, l, decodes, std::move(chunks), rung);
  return true;
}

}  // namespace festina::simulator
