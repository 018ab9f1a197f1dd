#pragma once
#include <cstddef>
#include <memory>
#include <utility>

#include "cuda/driver/driver.hpp"

// The part of cuda.h that green contexts need, so that builds without a toolkit have them too.
// abi_check.cpp compares it with the real header where there is one.

namespace festina::cuda {

struct SmResource {
  unsigned sm_count;
  unsigned partition_min;
  unsigned coscheduled;
};

struct Resource {  // CUdevResource
  int type;
  unsigned char padding[92];
  union {
    SmResource sm;
    unsigned char oversize[48];
  };
};

constexpr int resource_sm = 1;                // CU_DEV_RESOURCE_TYPE_SM
constexpr unsigned default_stream = 1;        // CU_GREEN_CTX_DEFAULT_STREAM, required
constexpr unsigned ignore_coscheduling = 1;   // CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING
constexpr unsigned stream_non_blocking = 1;   // CU_STREAM_NON_BLOCKING, required
constexpr unsigned event_disable_timing = 2;  // CU_EVENT_DISABLE_TIMING
constexpr int invalid_resource_config = 915;  // CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION

// Entry points, each with the version that brought its ABI (cudaTypedefs.h): none is newer than
// 12.5, so a driver of CUDA 13.0 has them all. Handles are opaque.
// Raises: `DriverError`, symbol_absent, naming the one that the driver lacks.
struct Calls {
  explicit Calls(std::shared_ptr<const Driver> loaded) : driver(std::move(loaded)) {}

  std::shared_ptr<const Driver> driver;
  int (*device_resource)(int, Resource*,
                         int) = get<decltype(device_resource)>("cuDeviceGetDevResource", 12040);
  int (*split)(Resource*, unsigned*, const Resource*, Resource*, unsigned,
               unsigned) = get<decltype(split)>("cuDevSmResourceSplitByCount", 12040);
  int (*describe)(void**, Resource*,
                  unsigned) = get<decltype(describe)>("cuDevResourceGenerateDesc", 12040);
  int (*green_create)(void**, void*, int,
                      unsigned) = get<decltype(green_create)>("cuGreenCtxCreate", 12040);
  int (*green_destroy)(void*) = get<decltype(green_destroy)>("cuGreenCtxDestroy", 12040);
  int (*green_resource)(void*, Resource*,
                        int) = get<decltype(green_resource)>("cuGreenCtxGetDevResource", 12040);
  int (*green_stream)(void**, void*, unsigned,
                      int) = get<decltype(green_stream)>("cuGreenCtxStreamCreate", 12050);
  int (*stream_destroy)(void*) = get<decltype(stream_destroy)>("cuStreamDestroy", 4000);
  int (*event_create)(void**, unsigned) = get<decltype(event_create)>("cuEventCreate", 2000);
  int (*event_destroy)(void*) = get<decltype(event_destroy)>("cuEventDestroy", 4000);
  int (*green_record)(void*, void*) = get<decltype(green_record)>("cuGreenCtxRecordEvent", 12040);
  int (*green_wait)(void*, void*) = get<decltype(green_wait)>("cuGreenCtxWaitEvent", 12040);

 private:
  template <typename Function>
  [[nodiscard]] Function get(const char* name, int cuda_version) const {
    return driver->function<Function>(name, cuda_version);
  }
};

}  // namespace festina::cuda
