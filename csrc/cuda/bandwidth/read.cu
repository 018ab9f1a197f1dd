#include "cuda/bandwidth/read.hpp"

namespace festina::bandwidth {
namespace {

constexpr unsigned warp = 32;

__global__ void __launch_bounds__(threads) read_words(const Read read) {
  const std::size_t thread = std::size_t{blockIdx.x} * threads + threadIdx.x;
  const std::uint32_t own = fold_share(read, thread, std::size_t{gridDim.x} * threads);
  const std::uint32_t folded = __reduce_xor_sync(0xffffffffU, own);
  if (threadIdx.x % warp == 0) {
    atomicXor(read.folded, folded);
  }
}

}  // namespace

cudaError_t run_device(const Read& read, unsigned blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaErrorInvalidConfiguration;
  read_words<<<blocks, threads, 0, stream>>>(read);
  return cudaGetLastError();
}

}  // namespace festina::bandwidth
