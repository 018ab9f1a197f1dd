#pragma once
#include <cuda_runtime_api.h>

#include "cuda/kv_copy/descriptor.hpp"

// Batched gather/scatter of KV blocks within one GPU (DESIGN section 2; hot path of migration).
// `runs` and both pools are device memory; the call is asynchronous on `stream`, and capturable.

namespace festina::kv_copy {

// Blocks of the grid are capped at `grid_max`, so that the copy leaves SMs to the models it runs
// beside. The returned status must be checked.
[[nodiscard]] cudaError_t copy_device(const std::byte* src, std::byte* dst, const Descriptor* runs,
                                      std::uint32_t count, std::uint32_t grid_max,
                                      cudaStream_t stream);

}  // namespace festina::kv_copy
