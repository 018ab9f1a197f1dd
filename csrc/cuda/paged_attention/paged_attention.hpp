#pragma once
#include <cuda_runtime_api.h>

#include "cuda/numbers.hpp"
#include "cuda/paged_attention/types.hpp"

// Paged attention on a GPU. All arrays are device memory; calls are asynchronous on `stream`, and
// capturable: a graph keeps the addresses, and reads lengths and tables when it runs. The returned
// status must be checked. Sizes must have passed `check` (run.hpp).

namespace festina::paged_attention {

[[nodiscard]] cudaError_t run_device(const Shape& shape, const Arrays<float>& arrays,
                                     cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Shape& shape, const Arrays<cuda::Bf16>& arrays,
                                     cudaStream_t stream);

}  // namespace festina::paged_attention
