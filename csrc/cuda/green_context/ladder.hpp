#pragma once
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/driver/primary.hpp"
#include "cuda/green_context/abi.hpp"

// A ladder of SM partitions, made once; changing the split is choosing other streams (DESIGN 2).
//
// Rung 0 is the whole device. Each further rung is two halves from one split, hence disjoint: the
// first with at least the SMs asked for, the second with the rest, which the driver gives no
// cluster guarantee. Rungs overlap one another. A CUDA graph keeps the partition it was captured
// on: one graph set per rung.
//
// Ownership: contexts, streams and events live as long as the `Ladder`, which keeps the driver and
// the primary context. The caller waits for its work on them before it lets go.
// Threads: one at a time. No green context is ever made current: work gets in by its streams.
// Raises: `DriverError`.

namespace festina::cuda {

struct Granularity {
  unsigned sms_min;   // SMs of the smallest partition
  unsigned sms_step;  // SMs from one size to the next
};

class Ladder {
 public:
  // `sms`: SMs of the first half of each rung above 0. `streams`: of each half.
  Ladder(std::shared_ptr<const Driver> driver, int ordinal, const std::vector<unsigned>& sms,
         unsigned streams, bool fine)
      : calls_(std::move(driver)),
        flags_(fine ? ignore_coscheduling : 0U),
        primary_(calls_.driver, ordinal),
        whole_(whole()),
        granularity_(ask_granularity()) {
    if (streams == 0) {
      throw std::invalid_argument("streams: expected at least 1");
    }
    rungs_.resize(sms.size() + 1);
    rungs_[0].push_back(make(whole_, streams));
    for (std::size_t rung = 1; rung < rungs_.size(); ++rung) {
      auto [first, second] = split(sms[rung - 1]);
      rungs_[rung].push_back(make(first, streams));
      rungs_[rung].push_back(make(second, streams));
    }
  }

  [[nodiscard]] Granularity granularity() const noexcept { return granularity_; }
  [[nodiscard]] unsigned sms_total() const noexcept { return whole_.sm.sm_count; }
  [[nodiscard]] std::size_t current() const noexcept { return current_; }

  // SMs of each half of each rung, as read back from its context.
  [[nodiscard]] std::vector<std::vector<unsigned>> rungs() const {
    std::vector<std::vector<unsigned>> counts;
    for (const auto& rung : rungs_) {
      auto& sides = counts.emplace_back();
      for (const Partition& partition : rung) {
        sides.push_back(partition.sms);
      }
    }
    return counts;
  }

  // CUstream handles of one half.
  [[nodiscard]] std::vector<void*> streams(std::size_t rung, std::size_t side) const {
    std::vector<void*> handles;
    for (const Handle& stream : rungs_.at(rung).at(side).streams) {
      handles.push_back(stream.get());
    }
    return handles;
  }

  // From now on work goes to the streams of `rung`: it starts after all that was given to those of
  // the rung before. Costs an event per half, and makes nothing. Raises, and stays where it is,
  // while a stream of either rung is being captured.
  void switch_to(std::size_t rung) {
    const auto& next = rungs_.at(rung);
    if (rung == current_) {
      return;
    }
    for (const Partition& from : rungs_[current_]) {
      check("cuGreenCtxRecordEvent", calls_.green_record(from.context.get(), from.event.get()));
      for (const Partition& to : next) {
        check("cuGreenCtxWaitEvent", calls_.green_wait(to.context.get(), from.event.get()));
      }
    }
    current_ = rung;
  }

 private:
  struct Destroy {
    int (*call)(void*) = nullptr;
    void operator()(void* handle) const noexcept { static_cast<void>(call(handle)); }
  };
  using Handle = std::unique_ptr<void, Destroy>;

  struct Partition {  // destroyed from the last member to the first: streams before their context
    unsigned sms;
    Handle context;
    Handle event;  // all that its streams were given, when its rung was last left
    std::vector<Handle> streams;
  };

  void check(const char* call, int status) const { calls_.driver->check(call, status); }

  [[nodiscard]] Resource whole() const {
    Resource resource{};
    check("cuDeviceGetDevResource",
          calls_.device_resource(primary_.device(), &resource, resource_sm));
    return resource;
  }

  // One group of at least `sms` SMs, and the rest.
  [[nodiscard]] std::pair<Resource, Resource> cut(unsigned sms) const {
    Resource group{};
    Resource rest{};
    unsigned groups = 1;
    const int status = calls_.split(&group, &groups, &whole_, &rest, flags_, sms);
    if (status == invalid_resource_config || (status == 0 && groups == 0)) {
      throw DriverError(DriverFault::no_resources, "no partition of " + std::to_string(sms) +
                                                       " SMs on a device with " +
                                                       std::to_string(sms_total()));
    }
    check("cuDevSmResourceSplitByCount", status);
    return {group, rest};
  }

  // Asked of the driver for these flags, never tabulated: it differs between architectures, and the
  // fields of CUdevSmResource that tell it are new in CUDA 13.0 and know nothing of flags.
  [[nodiscard]] Granularity ask_granularity() const {
    const unsigned sms_min = cut(1).first.sm.sm_count;
    if (sms_min >= sms_total()) {
      return {sms_min, 0};
    }
    return {sms_min, cut(sms_min + 1).first.sm.sm_count - sms_min};
  }

  [[nodiscard]] std::pair<Resource, Resource> split(unsigned sms) const {
    auto halves = cut(sms);
    if (halves.second.type != resource_sm || halves.second.sm.sm_count == 0) {
      throw DriverError(DriverFault::no_resources, std::to_string(sms) + " SMs round up to " +
                                                       std::to_string(halves.first.sm.sm_count) +
                                                       " of " + std::to_string(sms_total()) +
                                                       ": no SM is left for the other half");
    }
    return halves;
  }

  [[nodiscard]] Partition make(Resource resource, unsigned streams) const {
    void* description = nullptr;
    check("cuDevResourceGenerateDesc", calls_.describe(&description, &resource, 1));
    void* context = nullptr;
    check("cuGreenCtxCreate",
          calls_.green_create(&context, description, primary_.device(), default_stream));
    Partition made{0, {context, {calls_.green_destroy}}, {nullptr, {}}, {}};
    made.event = make_event();
    Resource got{};
    check("cuGreenCtxGetDevResource", calls_.green_resource(context, &got, resource_sm));
    made.sms = got.sm.sm_count;
    for (unsigned i = 0; i < streams; ++i) {
      void* stream = nullptr;
      check("cuGreenCtxStreamCreate",
            calls_.green_stream(&stream, context, stream_non_blocking, 0));
      made.streams.emplace_back(stream, Destroy{calls_.stream_destroy});
    }
    return made;
  }

  // cuEventRecord asks for an event of the stream's own context, which no green one is current to
  // make; cuGreenCtxRecordEvent and cuGreenCtxWaitEvent ask for one of the same primary context.
  [[nodiscard]] Handle make_event() const {
    const PrimaryContext::Current current(primary_);
    void* event = nullptr;
    check("cuEventCreate", calls_.event_create(&event, event_disable_timing));
    return {event, Destroy{calls_.event_destroy}};
  }

  Calls calls_;
  unsigned flags_;
  PrimaryContext primary_;
  Resource whole_;
  Granularity granularity_;
  std::vector<std::vector<Partition>> rungs_;
  std::size_t current_ = 0;
};

}  // namespace festina::cuda
