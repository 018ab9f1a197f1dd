#include <cuda_runtime_api.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/green_context/sm_ids.hpp"

namespace festina::cuda {
namespace {

constexpr long long block_cycles = 100'000;

__global__ void sm_id_kernel(std::uint32_t* ids) {
  std::uint32_t id = 0;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  ids[blockIdx.x] = id;
  const long long start = clock64();
  while (clock64() - start < block_cycles) {
  }
}

void check(cudaError_t status) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("sm_ids: ") + cudaGetErrorName(status));
  }
}

struct Free {
  void operator()(std::uint32_t* memory) const noexcept { static_cast<void>(cudaFree(memory)); }
};

}  // namespace

std::vector<std::uint32_t> sm_ids(int ordinal, void* stream, std::uint32_t blocks) {
  std::vector<std::uint32_t> ids(blocks);
  if (blocks == 0) {
    return ids;
  }
  check(cudaSetDevice(ordinal));
  const std::size_t size = blocks * sizeof(std::uint32_t);
  std::uint32_t* memory = nullptr;
  check(cudaMalloc(&memory, size));
  const std::unique_ptr<std::uint32_t, Free> owned(memory);
  const auto on = static_cast<cudaStream_t>(stream);
  sm_id_kernel<<<blocks, 32, 0, on>>>(memory);
  check(cudaGetLastError());
  check(cudaMemcpyAsync(ids.data(), memory, size, cudaMemcpyDeviceToHost, on));
  check(cudaStreamSynchronize(on));
  return ids;
}

}  // namespace festina::cuda
