#include "cuda/paged_attention/block.hpp"
#include "cuda/paged_attention/join.hpp"
#include "cuda/paged_attention/paged_attention.hpp"

namespace festina::paged_attention {
namespace {

template <typename T, std::uint32_t Heads>
__global__ void __launch_bounds__(threads) attend(const Shape shape, const Arrays<T> arrays) {
  __shared__ Shared<Heads> shared;
  const Place place{blockIdx.x, blockIdx.y / shape.shares(), blockIdx.y % shape.shares(),
                    blockIdx.z};
  const Block<T, Heads> block(shape, arrays, place, shared);
  const std::uint32_t thread = threadIdx.x;
  Thread<Heads> own;
  block.start(thread, own);
  __syncthreads();
  for (std::uint32_t base = block.begin(); base < block.end(); base += tile) {
    block.score(thread, own, base);
    __syncthreads();
    block.fold_highest(thread);
    __syncthreads();
    block.weigh(thread, own);
    __syncthreads();
    block.gather(thread, own, base);
    __syncthreads();
  }
  block.finish(thread, own);
#pragma unroll
  for (std::uint32_t h = 0; h < Heads; ++h) {  // no way out early, so that sums stay in registers
    if (h < block.heads()) {                   // the same for all threads
      __syncthreads();
      block.spread(thread, own, h);
      __syncthreads();
      block.collect(thread, own, h);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(threads) join_splits(const Shape shape, const Arrays<T> arrays) {
  join(shape, arrays, blockIdx.x, threadIdx.x, threads);
}

template <typename T>
cudaError_t run(const Shape& shape, const Arrays<T>& arrays, cudaStream_t stream) {
  if (shape.sequences == 0) {
    return cudaSuccess;
  }
  const dim3 grid(shape.splits, shape.kv_heads * shape.shares(), shape.sequences);
  switch (shape.heads_each()) {
    case 1:
      attend<T, 1><<<grid, threads, 0, stream>>>(shape, arrays);
      break;
    case 2:
      attend<T, 2><<<grid, threads, 0, stream>>>(shape, arrays);
      break;
    case 4:
      attend<T, 4><<<grid, threads, 0, stream>>>(shape, arrays);
      break;
    default:
      attend<T, 8><<<grid, threads, 0, stream>>>(shape, arrays);
      break;
  }
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess || shape.splits == 1) {
    return status;
  }
  join_splits<<<shape.sequences * shape.heads(), threads, 0, stream>>>(shape, arrays);
  return cudaGetLastError();
}

}  // namespace

cudaError_t run_device(const Shape& shape, const Arrays<float>& arrays, cudaStream_t stream) {
  return run(shape, arrays, stream);
}

cudaError_t run_device(const Shape& shape, const Arrays<cuda::Bf16>& arrays, cudaStream_t stream) {
  return run(shape, arrays, stream);
}

}  // namespace festina::paged_attention
