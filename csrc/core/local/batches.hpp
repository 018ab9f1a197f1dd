#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/types.hpp"

namespace festina::local {

inline double due_ms(const Decode& d, double margin) { return d.last_ms + d.tbt_ms * (1 - margin); }

// Orders the decodes of one model, the outgrown first, then by deadline, and appends their batches
// to `batches`, each of at most `batch_max`.
inline void append_batches(std::span<Decode> decodes, const Options& options,
                           std::vector<Batch>& batches) {
  const double margin = options.margin;
  std::stable_sort(decodes.begin(), decodes.end(), [margin](const Decode& a, const Decode& b) {
    if (a.outgrown != b.outgrown) return a.outgrown;
    return due_ms(a, margin) < due_ms(b, margin);
  });
  const auto most = static_cast<std::size_t>(options.batch_max);
  for (std::size_t first = 0; first < decodes.size(); first += most) {
    const auto part = decodes.subspan(first, std::min(most, decodes.size() - first));
    Batch batch{static_cast<int>(part.size()), 0, kNever};
    double context = 0;
    for (const Decode& d : part) {
      context += d.cached_tokens;
      batch.due_ms = std::min(batch.due_ms, due_ms(d, margin));
      batch.paced_ms = std::min(batch.paced_ms, d.last_ms + d.pace * d.tbt_ms * (1 - margin));
    }
    batch.context_mean = context / batch.decodes;
    batches.push_back(batch);
  }
}

}  // namespace festina::local
