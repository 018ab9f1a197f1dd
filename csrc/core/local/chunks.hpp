#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/queue.hpp"
#include "core/local/step_work.hpp"
#include "core/local/types.hpp"

namespace festina::local {

// `first`, then others of its model, up to a chunk and to `room` sequences.
inline std::vector<Chunk> fill_chunks(const Lane& lane, const Prompt& first,
                                      std::span<const Waiting> queue, const Options& options,
                                      int room) {
  int left = options.chunk_tokens;
  std::vector<Chunk> chunks;
  const auto add = [&](const Prompt& p) {
    const int tokens = std::min(left, p.pending_tokens);
    if (tokens > 0) chunks.push_back({p.id, tokens, p.cached_tokens});
    left -= tokens;
  };
  add(first);
  double memory_free = lane.memory_free - (first.admitted ? 0 : first.memory);
  for (const Waiting& next : queue) {
    if (left <= 0 || static_cast<int>(chunks.size()) >= room) break;
    const Prompt& p = *next.prompt;
    if (p.id == first.id) continue;
    if (!p.admitted && !options.by_deadline) {  // else only those that get memory are left
      if (p.memory > memory_free) continue;
      memory_free -= p.memory;
    }
    add(p);
  }
  return chunks;
}

// Leaves the first `tokens` of them.
inline void cut_chunks(std::vector<Chunk>& chunks, int tokens) {
  std::size_t kept = 0;
  while (kept < chunks.size() && tokens > 0) {
    chunks[kept].tokens = std::min(chunks[kept].tokens, tokens);
    tokens -= chunks[kept++].tokens;
  }
  chunks.resize(kept);
}

inline int total(const std::vector<Chunk>& chunks) {
  int sum = 0;
  for (const Chunk& c : chunks) sum += c.tokens;
  return sum;
}

// `w` with the first `tokens` of the chunks. Their caches differ, so that what is cut off changes
// the mean.
inline StepWork joined(StepWork w, const std::vector<Chunk>& chunks, int tokens) {
  double cached = 0;
  for (const Chunk& c : chunks) {
    const int taken = std::min(c.tokens, tokens - w.tokens);
    cached += static_cast<double>(c.cached_tokens) * taken;
    w.tokens += taken;
  }
  if (w.tokens > 0) w.cached_mean = cached / w.tokens;
  return w;
}

}  // namespace festina::local
