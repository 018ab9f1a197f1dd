#include "cuda/decoder_ops/bodies.hpp"
#include "cuda/decoder_ops/decoder_ops.hpp"

namespace festina::decoder_ops {
namespace {

template <typename T>
__global__ void __launch_bounds__(threads) norm_rows(const Norm<T> norm) {
  __shared__ RowSums sums;
  add_row(norm, blockIdx.x, threadIdx.x, sums);
  __syncthreads();
  fold_row(threadIdx.x, sums);
  __syncthreads();
  scale_row(norm, blockIdx.x, threadIdx.x, sums);
}

template <typename T>
__global__ void __launch_bounds__(threads) gate_rows(const Gate<T> gate, std::size_t items) {
  const std::size_t item = std::size_t{blockIdx.x} * threads + threadIdx.x;
  if (item < items) gate_eight(gate, item);
}

template <typename T>
__global__ void __launch_bounds__(threads) rotate_rows(const Rotate<T> rotate) {
  __shared__ HeadSums sums;
  if (rotate.q_gain != nullptr) {
    square_heads(rotate, blockIdx.x, threadIdx.x, sums);
    __syncthreads();
  }
  turn_heads(rotate, blockIdx.x, threadIdx.x, sums);
}

template <typename T>
cudaError_t run(const Norm<T>& norm, cudaStream_t stream) {
  if (norm.rows == 0) return cudaSuccess;
  norm_rows<<<norm.rows, threads, 0, stream>>>(norm);
  return cudaGetLastError();
}

template <typename T>
cudaError_t run(const Gate<T>& gate, cudaStream_t stream) {
  const std::size_t items = std::size_t{gate.rows} * (gate.width / 8);
  if (items == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((items + threads - 1) / threads);
  gate_rows<<<blocks, threads, 0, stream>>>(gate, items);
  return cudaGetLastError();
}

template <typename T>
cudaError_t run(const Rotate<T>& rotate, cudaStream_t stream) {
  if (rotate.rows == 0) return cudaSuccess;
  rotate_rows<<<rotate.rows, threads, 0, stream>>>(rotate);
  return cudaGetLastError();
}

}  // namespace

cudaError_t run_device(const Norm<float>& norm, cudaStream_t stream) { return run(norm, stream); }
cudaError_t run_device(const Norm<cuda::Bf16>& norm, cudaStream_t stream) {
  return run(norm, stream);
}
cudaError_t run_device(const Gate<float>& gate, cudaStream_t stream) { return run(gate, stream); }
cudaError_t run_device(const Gate<cuda::Bf16>& gate, cudaStream_t stream) {
  return run(gate, stream);
}
cudaError_t run_device(const Rotate<float>& rotate, cudaStream_t stream) {
  return run(rotate, stream);
}
cudaError_t run_device(const Rotate<cuda::Bf16>& rotate, cudaStream_t stream) {
  return run(rotate, stream);
}

}  // namespace festina::decoder_ops
