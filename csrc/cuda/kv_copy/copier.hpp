#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/kv_copy/device.hpp"
#include "cuda/kv_copy/kernels.hpp"
#include "cuda/kv_copy/merge.hpp"
#include "cuda/kv_copy/route.hpp"

// Batched gather/scatter of KV blocks that touches a GPU (DESIGN section 2; hot path of migration):
// within it, to and from pinned host memory, to a peer, to memory of another process.
//
// Two ways: a kernel, for runs too small for the copy engines, on as many blocks as the caller lets
// it have; and one batch for the copy engines, which leaves the SMs alone. Both are asynchronous.
//
// Ownership: keeps the device and its kernels. Memories and streams are the caller's.
// Threads: `copy` and what asks from any; `enable_peer` one at a time.
// Raises: `DriverError` with the call's name. Some of the runs of a `copy` that fails may have been
// started. A fault on the device itself shows at a later call, as device_lost.

namespace festina::kv_copy {

class Copier {
 public:
  // `image`: the kernels' fat binary; only read here.
  Copier(std::shared_ptr<const Device> device, std::span<const std::byte> image)
      : device_(std::move(device)), kernels_(*device_, image) {}

  [[nodiscard]] const std::shared_ptr<const Device>& device() const noexcept { return device_; }

  // Copies `runs` of `src` to `dst` in the order of `route.stream`. Throws std::out_of_range naming
  // a bad descriptor; then, and where a run would go by engine under capture, nothing is started.
  Copied copy(Region src, Region dst, std::span<const Descriptor> runs, const Route& route) const {
    check_route(src, dst, route);
    check(runs, src.size, dst.size);
    const cuda::PrimaryContext::Current current(device_->primary);
    if (route.engine_min > src.size) {  // no run is that long, however many are merged
      return {kernels_.copy_in_order(src.address, dst.address, runs, route), 0};
    }
    std::vector<Descriptor> merged = merge(runs);
    const auto engine =
        std::stable_partition(merged.begin(), merged.end(),
                              [&](const Descriptor& run) { return run.size < route.engine_min; });
    const std::span<const Descriptor> small(merged.begin(), engine);
    const std::span<const Descriptor> large(engine, merged.end());
    if (!large.empty()) {
      refuse_capture(route.stream);
    }
    kernels_.copy(src.address, dst.address, small, route);
    by_engine(src.address, dst.address, large, route.stream);
    return {small.size(), large.size()};
  }

  // The plain rival of benchmarks: one call for each run as it stands, unmerged.
  void copy_each(Region src, Region dst, std::span<const Descriptor> runs, void* stream) const {
    check_route(src, dst, {stream, 1, 0});
    check(runs, src.size, dst.size);
    const cuda::PrimaryContext::Current current(device_->primary);
    for (const Descriptor& run : runs) {
      device_->check("cuMemcpyAsync",
                     device_->calls.copy_one(dst.address + run.dst_offset,
                                             src.address + run.src_offset, run.size, stream));
    }
  }

  // Lets copies of this device reach the memory of another one. Asked twice, nothing more happens.
  void enable_peer(int ordinal) {
    if (peers_.contains(ordinal)) {
      return;
    }
    auto peer = std::make_unique<cuda::PrimaryContext>(device_->calls.driver, ordinal);
    int can = 0;
    device_->check("cuDeviceCanAccessPeer",
                   device_->calls.can_access(&can, device_->primary.device(), peer->device()));
    if (can == 0) {
      throw cuda::DriverError(cuda::DriverFault::no_resources,
                              "device " + std::to_string(device_->ordinal) +
                                  " cannot reach the memory of device " + std::to_string(ordinal));
    }
    const cuda::PrimaryContext::Current current(device_->primary);
    const int status = device_->calls.enable_peer(peer->get(), 0);
    if (status != peer_already_enabled) {
      device_->check("cuCtxEnablePeerAccess", status);
    }
    peers_.emplace(ordinal, std::move(peer));
  }

  // Waits for all that was given to `stream`; raises what failed on the device meanwhile.
  void wait(void* stream) const {
    const cuda::PrimaryContext::Current current(device_->primary);
    device_->check("cuStreamSynchronize", device_->calls.stream_wait(stream));
  }

  // Whether all that was given to `stream` is done.
  [[nodiscard]] bool done(void* stream) const {
    const cuda::PrimaryContext::Current current(device_->primary);
    const int status = device_->calls.stream_query(stream);
    if (status != not_ready) {
      device_->check("cuStreamQuery", status);
    }
    return status == 0;
  }

  struct Shared {
    IpcHandle handle;  // of the whole allocation
    Address offset;    // of the address asked for, from its start
    std::size_t size;  // of the whole allocation
  };

  // How another process gets at `address`, which must lie in memory of cuMemAlloc.
  [[nodiscard]] Shared share(Address address) const {
    const cuda::PrimaryContext::Current current(device_->primary);
    Shared shared{};
    Address base = 0;
    device_->check("cuMemGetAddressRange",
                   device_->calls.address_range(&base, &shared.size, address));
    device_->check("cuIpcGetMemHandle", device_->calls.ipc_get(&shared.handle, base));
    shared.offset = address - base;
    return shared;
  }

 private:
  // The driver refuses batches on the legacy default stream, which also waits for all others.
  static void check_route(Region src, Region dst, const Route& route) {
    constexpr std::uintptr_t legacy = 1;  // CU_STREAM_LEGACY
    if (reinterpret_cast<std::uintptr_t>(route.stream) <= legacy) {
      throw std::invalid_argument("stream: expected one of its own, not the legacy default one");
    }
    if (route.blocks_max == 0) {
      throw std::invalid_argument("blocks_max: expected at least 1");
    }
    if (src.address % sizeof(Word) != 0 || dst.address % sizeof(Word) != 0) {
      throw std::invalid_argument("address: expected a multiple of 16");
    }
  }

  // A batch given to a stream under capture would leave a valid graph without the copy.
  void refuse_capture(void* stream) const {
    int capturing = not_capturing;
    device_->check("cuStreamIsCapturing", device_->calls.is_capturing(stream, &capturing));
    if (capturing != not_capturing) {
      throw cuda::DriverError(cuda::DriverFault::capturing,
                              "cuMemcpyBatchAsync cannot be captured into a graph");
    }
  }

  void by_engine(Address src, Address dst, std::span<const Descriptor> runs, void* stream) const {
    if (runs.empty()) {
      return;
    }
    std::vector<Address> from;
    std::vector<Address> to;
    std::vector<std::size_t> sizes;
    for (const Descriptor& run : runs) {
      from.push_back(src + run.src_offset);
      to.push_back(dst + run.dst_offset);
      sizes.push_back(run.size);
    }
    CopyAttributes attributes{access_order_stream, {}, {}, prefer_overlap};
    std::size_t first = 0;
    device_->check("cuMemcpyBatchAsync",
                   device_->calls.copy_batch(to.data(), from.data(), sizes.data(), runs.size(),
                                             &attributes, &first, 1, stream));
  }

  std::shared_ptr<const Device> device_;
  Kernels kernels_;
  std::map<int, std::unique_ptr<cuda::PrimaryContext>> peers_;
};

}  // namespace festina::kv_copy
