#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace festina::simulator {

enum class EventKind : std::uint8_t {
  send,       // subject: request
  step_end,   // subject: GPU; stale unless `version` is the GPU's step version
  clock_set,  // subject: GPU; stale unless `version` is its clock version
  loaded,     // subject: GPU, detail: model
  woken,      // subject: GPU
  moved,      // subject: request
  timer,      // subject: GPU; stale unless `version` is its timer version
  tick,       // the policy's own clock
};

struct Event {
  double at_ms;
  std::uint64_t seq;  // among events of one moment, the one scheduled first comes first
  std::int32_t subject;
  std::int32_t detail;
  std::uint32_t version;
  EventKind kind;
};

// A heap ordered by (time, seq): the order of events depends on nothing but the order of calls.
class Events {
 public:
  void push(double at_ms, EventKind kind, int subject, int detail = 0, std::uint32_t version = 0) {
    heap_.push_back({at_ms, seq_++, subject, detail, version, kind});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  bool empty() const noexcept { return heap_.empty(); }
  const Event& next() const noexcept { return heap_.front(); }
  Event pop() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Event event = heap_.back();
    heap_.pop_back();
    return event;
  }

 private:
  static bool later(const Event& a, const Event& b) noexcept {
    return a.at_ms != b.at_ms ? a.at_ms > b.at_ms : a.seq > b.seq;
  }
  std::vector<Event> heap_;
  std::uint64_t seq_ = 0;
};

}  // namespace festina::simulator
