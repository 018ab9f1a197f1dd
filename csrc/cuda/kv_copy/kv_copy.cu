#include <algorithm>

#include "cuda/kv_copy/kv_copy.hpp"

namespace festina::kv_copy {
namespace {

constexpr std::uint32_t threads = 256;

__global__ void __launch_bounds__(threads)
    copy_kernel(const std::byte* src, std::byte* dst, const Descriptor* runs, std::uint32_t count) {
  for (std::uint32_t i = blockIdx.x; i < count; i += gridDim.x) {
    copy_lane(src, dst, runs[i], threadIdx.x, threads);
  }
}

}  // namespace

cudaError_t copy_device(const std::byte* src, std::byte* dst, const Descriptor* runs,
                        std::uint32_t count, std::uint32_t grid_max, cudaStream_t stream) {
  if (count == 0) {
    return cudaSuccess;
  }
  copy_kernel<<<std::min(count, std::max(grid_max, 1U)), threads, 0, stream>>>(src, dst, runs,
                                                                               count);
  return cudaGetLastError();
}

}  // namespace festina::kv_copy
