#pragma once
#include <cuda_runtime_api.h>

#include "cuda/decoder_ops/types.hpp"
#include "cuda/numbers.hpp"

// The operations on a GPU, asynchronous on `stream` and capturable. The returned status must be
// checked. Sizes must have passed `check` (run.hpp).

namespace festina::decoder_ops {

[[nodiscard]] cudaError_t run_device(const Norm<float>& norm, cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Norm<cuda::Bf16>& norm, cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Gate<float>& gate, cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Gate<cuda::Bf16>& gate, cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Rotate<float>& rotate, cudaStream_t stream);
[[nodiscard]] cudaError_t run_device(const Rotate<cuda::Bf16>& rotate, cudaStream_t stream);

}  // namespace festina::decoder_ops
