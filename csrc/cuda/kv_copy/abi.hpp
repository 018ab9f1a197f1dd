#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "cuda/driver/driver.hpp"

// The part of cuda.h that KV copies need, so that builds without a toolkit have them too.
// abi_check.cpp compares it with the real header where there is one.

namespace festina::kv_copy {

using Address = unsigned long long;  // CUdeviceptr: one address space for devices and pinned memory

struct Location {  // CUmemLocation
  int type;
  int id;
};

struct CopyAttributes {  // CUmemcpyAttributes
  int src_access_order;
  Location src_hint;
  Location dst_hint;
  unsigned flags;
};

struct AllocationProperties {  // CUmemAllocationProp
  int type;
  int handle_types;
  Location location;
  void* win32;
  unsigned char flags[8];
};

struct AccessDescription {  // CUmemAccessDesc
  Location location;
  int flags;
};

struct IpcHandle {  // CUipcMemHandle
  std::array<char, 64> bytes;
};

constexpr int access_order_stream = 1;     // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
constexpr unsigned prefer_overlap = 1;     // CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE
constexpr int not_capturing = 0;           // CU_STREAM_CAPTURE_STATUS_NONE
constexpr int not_ready = 600;             // CUDA_ERROR_NOT_READY
constexpr int peer_already_enabled = 704;  // CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
constexpr unsigned host_portable = 1;      // CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE
constexpr unsigned ipc_lazy_peer = 1;      // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, required
constexpr int allocation_pinned = 1;       // CU_MEM_ALLOCATION_TYPE_PINNED
constexpr int handle_posix_fd = 1;         // CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
constexpr int location_device = 1;         // CU_MEM_LOCATION_TYPE_DEVICE
constexpr int access_read_write = 3;       // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
constexpr int granularity_minimum = 0;     // CU_MEM_ALLOC_GRANULARITY_MINIMUM

// Entry points, each with the version that brought its ABI (cudaTypedefs.h). cuMemcpyBatchAsync has
// nine arguments in 12.8 and eight from 13.0 on: mixing them crashes, hence the lookup by version.
// Raises: `DriverError`, symbol_absent, naming the one that the driver lacks.
struct Calls {
  explicit Calls(std::shared_ptr<const cuda::Driver> loaded) : driver(std::move(loaded)) {}

  std::shared_ptr<const cuda::Driver> driver;
  int (*library_load)(void**, const void*, void*, void*, unsigned, void*, void*,
                      unsigned) = get<decltype(library_load)>("cuLibraryLoadData", 12000);
  int (*library_unload)(void*) = get<decltype(library_unload)>("cuLibraryUnload", 12000);
  int (*library_kernel)(void**, void*,
                        const char*) = get<decltype(library_kernel)>("cuLibraryGetKernel", 12000);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                void**, void**) = get<decltype(launch)>("cuLaunchKernel", 4000);
  int (*copy_batch)(Address*, Address*, std::size_t*, std::size_t, CopyAttributes*, std::size_t*,
                    std::size_t, void*) = get<decltype(copy_batch)>("cuMemcpyBatchAsync", 13000);
  int (*copy_one)(Address, Address, std::size_t, void*) = get<decltype(copy_one)>("cuMemcpyAsync",
                                                                                  4000);
  int (*is_capturing)(void*, int*) = get<decltype(is_capturing)>("cuStreamIsCapturing", 10000);
  int (*stream_wait)(void*) = get<decltype(stream_wait)>("cuStreamSynchronize", 2000);
  int (*stream_query)(void*) = get<decltype(stream_query)>("cuStreamQuery", 2000);
  int (*can_access)(int*, int, int) = get<decltype(can_access)>("cuDeviceCanAccessPeer", 4000);
  int (*enable_peer)(void*, unsigned) = get<decltype(enable_peer)>("cuCtxEnablePeerAccess", 4000);
  int (*allocate)(Address*, std::size_t) = get<decltype(allocate)>("cuMemAlloc", 3020);
  int (*free)(Address) = get<decltype(free)>("cuMemFree", 3020);
  int (*address_range)(Address*, std::size_t*,
                       Address) = get<decltype(address_range)>("cuMemGetAddressRange", 3020);
  int (*host_allocate)(void**, std::size_t,
                       unsigned) = get<decltype(host_allocate)>("cuMemHostAlloc", 2020);
  int (*host_free)(void*) = get<decltype(host_free)>("cuMemFreeHost", 2000);
  int (*host_register)(void*, std::size_t,
                       unsigned) = get<decltype(host_register)>("cuMemHostRegister", 6050);
  int (*host_unregister)(void*) = get<decltype(host_unregister)>("cuMemHostUnregister", 4000);
  int (*ipc_get)(IpcHandle*, Address) = get<decltype(ipc_get)>("cuIpcGetMemHandle", 4010);
  int (*ipc_open)(Address*, IpcHandle, unsigned) = get<decltype(ipc_open)>("cuIpcOpenMemHandle",
                                                                           11000);
  int (*ipc_close)(Address) = get<decltype(ipc_close)>("cuIpcCloseMemHandle", 4010);
  int (*granularity)(std::size_t*, const AllocationProperties*,
                     int) = get<decltype(granularity)>("cuMemGetAllocationGranularity", 10020);
  int (*create)(Address*, std::size_t, const AllocationProperties*,
                unsigned long long) = get<decltype(create)>("cuMemCreate", 10020);
  int (*release)(Address) = get<decltype(release)>("cuMemRelease", 10020);
  int (*export_handle)(void*, Address, int, unsigned long long) =
      get<decltype(export_handle)>("cuMemExportToShareableHandle", 10020);
  int (*import_handle)(Address*, void*,
                       int) = get<decltype(import_handle)>("cuMemImportFromShareableHandle", 10020);
  int (*reserve)(Address*, std::size_t, std::size_t, Address,
                 unsigned long long) = get<decltype(reserve)>("cuMemAddressReserve", 10020);
  int (*unreserve)(Address, std::size_t) = get<decltype(unreserve)>("cuMemAddressFree", 10020);
  int (*map)(Address, std::size_t, std::size_t, Address,
             unsigned long long) = get<decltype(map)>("cuMemMap", 10020);
  int (*unmap)(Address, std::size_t) = get<decltype(unmap)>("cuMemUnmap", 10020);
  int (*set_access)(Address, std::size_t, const AccessDescription*,
                    std::size_t) = get<decltype(set_access)>("cuMemSetAccess", 10020);

 private:
  template <typename Function>
  [[nodiscard]] Function get(const char* name, int cuda_version) const {
    return driver->function<Function>(name, cuda_version);
  }
};

}  // namespace festina::kv_copy
