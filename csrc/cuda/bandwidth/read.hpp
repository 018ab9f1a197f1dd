#pragma once
#include <cuda_runtime_api.h>

#include "cuda/bandwidth/body.hpp"

// The read on a GPU by `blocks` thread blocks, asynchronous on `stream`; `read.folded` is of the
// device and starts at what it is to be folded with. The returned status must be checked.

namespace festina::bandwidth {

[[nodiscard]] cudaError_t run_device(const Read& read, unsigned blocks, cudaStream_t stream);

}  // namespace festina::bandwidth
