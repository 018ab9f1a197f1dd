#pragma once
#include <stdexcept>
#include <string>
#if FESTINA_HAS_CUDA
#include <cuda_runtime_api.h>
#endif

// A kernel that could not be launched: in Python `CudaKernelError`.
namespace festina::bindings {

class KernelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

#if FESTINA_HAS_CUDA
inline void check_kernel(const char* kernel, cudaError_t status) {
  if (status != cudaSuccess) {
    throw KernelError(std::string(kernel) + ": " + cudaGetErrorName(status));
  }
}
#endif

}  // namespace festina::bindings
