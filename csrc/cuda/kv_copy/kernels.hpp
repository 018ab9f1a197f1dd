#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "cuda/kv_copy/device.hpp"
#include "cuda/kv_copy/merge.hpp"
#include "cuda/kv_copy/route.hpp"
#include "cuda/kv_copy/table.hpp"

// The copy kernels of one device, and how runs are divided among their launches.
//
// Ownership: holds the loaded library; the device is the caller's, and outlives it.
// Threads: any. The device's primary context must be current, but not to construct.
// Raises: `DriverError` with the call's name.

namespace festina::kv_copy {

struct Unload {
  int (*call)(void*) = nullptr;
  void operator()(void* library) const noexcept { static_cast<void>(call(library)); }
};

class Kernels {
 public:
  // `image`: the kernels' fat binary; only read here.
  Kernels(const Device& device, std::span<const std::byte> image) : device_(device) {
    if (image.empty()) {
      throw cuda::DriverError(cuda::DriverFault::absent, "built without CUDA: no copy kernels");
    }
    const cuda::PrimaryContext::Current current(device_.primary);
    void* library = nullptr;
    device_.check("cuLibraryLoadData", device_.calls.library_load(&library, image.data(), nullptr,
                                                                  nullptr, 0, nullptr, nullptr, 0));
    library_ = {library, Unload{device_.calls.library_unload}};
    short_ = kernel("festina_kv_copy_short");
    long_ = kernel("festina_kv_copy_long");
  }

  // A launch's worth at a time, so that the device begins while the rest is being prepared; runs
  // are merged with the next ones in the table, since a kernel gains little from more. How many
  // there were then.
  std::size_t copy_in_order(Address src, Address dst, std::span<const Descriptor> runs,
                            const Route& route) const {
    std::size_t joined = 0;
    for (std::size_t start = 0; start < runs.size(); start += long_table) {
      const std::size_t count = std::min<std::size_t>(long_table, runs.size() - start);
      const std::vector<Descriptor> some = join(runs.subspan(start, count));
      copy(src, dst, some, route);
      joined += some.size();
    }
    return joined;
  }

  void copy(Address src, Address dst, std::span<const Descriptor> runs, const Route& route) const {
    const std::vector<Descriptor> pieces = split(runs, piece_bytes);
    for (std::size_t start = 0; start < pieces.size();) {
      const std::span<const Descriptor> rest = std::span(pieces).subspan(start);
      if (rest.size() <= short_table) {
        start += launch<short_table>(short_, src, dst, rest, route);
      } else {
        start += launch<long_table>(long_, src, dst, rest, route);
      }
    }
  }

 private:
  [[nodiscard]] void* kernel(const char* name) const {
    void* handle = nullptr;
    device_.check("cuLibraryGetKernel",
                  device_.calls.library_kernel(&handle, library_.get(), name));
    return handle;
  }

  // Launches for as many of `pieces` as a table holds; how many that was.
  template <std::uint32_t N>
  std::size_t launch(void* kernel, Address src, Address dst, std::span<const Descriptor> pieces,
                     const Route& route) const {
    constexpr std::uint64_t warp_bytes = 4096;  // what one warp copies as fast as a whole block
    constexpr std::uint32_t warp_lanes = 32;
    const auto taken = pieces.first(std::min<std::size_t>(pieces.size(), N));
    Table<N> table;
    table.src = src;
    table.dst = dst;
    table.count = static_cast<std::uint32_t>(taken.size());
    const bool small = std::all_of(taken.begin(), taken.end(),
                                   [](const Descriptor& run) { return run.size < warp_bytes; });
    table.lanes = small ? warp_lanes : block_threads;
    std::copy(taken.begin(), taken.end(), std::begin(table.runs));
    const std::uint32_t at_once = block_threads / table.lanes;
    const std::uint32_t blocks = std::min((table.count + at_once - 1) / at_once, route.blocks_max);
    void* parameters[] = {&table};
    device_.check("cuLaunchKernel", device_.calls.launch(kernel, blocks, 1, 1, block_threads, 1, 1,
                                                         0, route.stream, parameters, nullptr));
    return taken.size();
  }

  const Device& device_;
  std::unique_ptr<void, Unload> library_;
  void* short_ = nullptr;
  void* long_ = nullptr;
};

}  // namespace festina::kv_copy
