#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/local/types.hpp"

// When a step may wait: latest starts that keep every deadline.
namespace festina::local {

// The decodes of one model that will share its next step.
struct DecodeGroup {
  int lane;
  double due_ms;             // when their tokens must be out
  double latency_ms;         // predicted duration of their step
  double start_ms = kNever;  // latest start, once set
  int batch = 0;             // of the lane
  double paced_ms = kNever;  // when their tokens should be out, if before

  // When the step should start: paced, but never after its latest start.
  double release_ms() const noexcept { return std::min(paced_ms - latency_ms, start_ms); }
};

// Orders groups by deadline and sets the latest start of each so that all meet their deadlines one
// after the other: backwards from the last, each ends before its deadline and before the next one
// starts (earliest deadline first is optimal on one processor). Returns the first start.
inline double set_latest_starts(std::vector<DecodeGroup>& groups) {
  std::sort(groups.begin(), groups.end(), [](const DecodeGroup& a, const DecodeGroup& b) {
    if (a.due_ms != b.due_ms) return a.due_ms < b.due_ms;
    return a.lane != b.lane ? a.lane < b.lane : a.batch < b.batch;
  });
  double following_ms = kNever;
  for (std::size_t i = groups.size(); i-- > 0;) {
    following_ms = std::min(groups[i].due_ms, following_ms) - groups[i].latency_ms;
    groups[i].start_ms = following_ms;
  }
  return following_ms;
}

// A missed deadline start + objective becomes start + 2 x objective, then 4 x, so that the late do
// not crowd out those that can still be in time, and none starves.
inline double rolled_deadline(double start_ms, double objective_ms, double now_ms) {
  objective_ms = std::max(objective_ms, 1e-3);  // doubling 0 would never end
  while (start_ms + objective_ms < now_ms) objective_ms *= 2;
  return start_ms + objective_ms;
}

}  // namespace festina::local
