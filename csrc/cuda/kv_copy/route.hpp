#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/kv_copy/abi.hpp"

// From where to where a copy that touches a GPU goes, and how.

namespace festina::kv_copy {

struct Region {
  Address address;
  std::uint64_t size;
};

struct Route {
  void* stream;              // of this device; never the legacy default one
  std::uint32_t blocks_max;  // of the kernel's grid, so that it leaves SMs to the models beside it
  std::uint64_t engine_min;  // runs of so many bytes go by the copy engines, smaller by the kernel
};

struct Copied {  // runs, after merging
  std::size_t by_kernel;
  std::size_t by_engine;
};

}  // namespace festina::kv_copy
