// Compiled where there is a CUDA toolkit, and empty: a header that differs from abi.hpp ends the
// build.
#include <cuda.h>
#include <cudaTypedefs.h>

#include <type_traits>

#include "cuda/kv_copy/abi.hpp"

namespace festina::kv_copy {
namespace {

// Whether two functions take as many arguments, each as large and as much of a pointer.
template <typename A, typename B>
struct SameShape : std::false_type {};

template <typename... A, typename R, typename... B>
struct SameShape<int (*)(A...), R (*)(B...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(A) == sizeof...(B)) {
      return ((sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>) && ...);
    } else {
      return false;
    }
  }();
};

#define FESTINA_SAME(member, type) static_assert(SameShape<decltype(Calls::member), type>::value)
FESTINA_SAME(library_load, PFN_cuLibraryLoadData_v12000);
FESTINA_SAME(library_unload, PFN_cuLibraryUnload_v12000);
FESTINA_SAME(library_kernel, PFN_cuLibraryGetKernel_v12000);
FESTINA_SAME(launch, PFN_cuLaunchKernel_v4000);
FESTINA_SAME(copy_batch, PFN_cuMemcpyBatchAsync_v13000);
FESTINA_SAME(copy_one, PFN_cuMemcpyAsync_v4000);
FESTINA_SAME(is_capturing, PFN_cuStreamIsCapturing_v10000);
FESTINA_SAME(stream_wait, PFN_cuStreamSynchronize_v2000);
FESTINA_SAME(stream_query, PFN_cuStreamQuery_v2000);
FESTINA_SAME(can_access, PFN_cuDeviceCanAccessPeer_v4000);
FESTINA_SAME(enable_peer, PFN_cuCtxEnablePeerAccess_v4000);
FESTINA_SAME(allocate, PFN_cuMemAlloc_v3020);
FESTINA_SAME(free, PFN_cuMemFree_v3020);
FESTINA_SAME(address_range, PFN_cuMemGetAddressRange_v3020);
FESTINA_SAME(host_allocate, PFN_cuMemHostAlloc_v2020);
FESTINA_SAME(host_free, PFN_cuMemFreeHost_v2000);
FESTINA_SAME(host_register, PFN_cuMemHostRegister_v6050);
FESTINA_SAME(host_unregister, PFN_cuMemHostUnregister_v4000);
FESTINA_SAME(ipc_get, PFN_cuIpcGetMemHandle_v4010);
FESTINA_SAME(ipc_open, PFN_cuIpcOpenMemHandle_v11000);
FESTINA_SAME(ipc_close, PFN_cuIpcCloseMemHandle_v4010);
FESTINA_SAME(granularity, PFN_cuMemGetAllocationGranularity_v10020);
FESTINA_SAME(create, PFN_cuMemCreate_v10020);
FESTINA_SAME(release, PFN_cuMemRelease_v10020);
FESTINA_SAME(export_handle, PFN_cuMemExportToShareableHandle_v10020);
FESTINA_SAME(import_handle, PFN_cuMemImportFromShareableHandle_v10020);
FESTINA_SAME(reserve, PFN_cuMemAddressReserve_v10020);
FESTINA_SAME(unreserve, PFN_cuMemAddressFree_v10020);
FESTINA_SAME(map, PFN_cuMemMap_v10020);
FESTINA_SAME(unmap, PFN_cuMemUnmap_v10020);
FESTINA_SAME(set_access, PFN_cuMemSetAccess_v10020);
#undef FESTINA_SAME

static_assert(sizeof(CopyAttributes) == sizeof(CUmemcpyAttributes));
static_assert(offsetof(CopyAttributes, src_hint) == offsetof(CUmemcpyAttributes, srcLocHint));
static_assert(offsetof(CopyAttributes, dst_hint) == offsetof(CUmemcpyAttributes, dstLocHint));
static_assert(offsetof(CopyAttributes, flags) == offsetof(CUmemcpyAttributes, flags));
static_assert(sizeof(AllocationProperties) == sizeof(CUmemAllocationProp));
static_assert(offsetof(AllocationProperties, location) == offsetof(CUmemAllocationProp, location));
static_assert(offsetof(AllocationProperties, flags) == offsetof(CUmemAllocationProp, allocFlags));
static_assert(sizeof(AccessDescription) == sizeof(CUmemAccessDesc));
static_assert(sizeof(IpcHandle) == sizeof(CUipcMemHandle));
static_assert(access_order_stream == CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
static_assert(prefer_overlap == CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE);
static_assert(not_capturing == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(not_ready == CUDA_ERROR_NOT_READY);
static_assert(peer_already_enabled == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
static_assert(host_portable == CU_MEMHOSTALLOC_PORTABLE);
static_assert(host_portable == CU_MEMHOSTREGISTER_PORTABLE);
static_assert(ipc_lazy_peer == CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
static_assert(allocation_pinned == CU_MEM_ALLOCATION_TYPE_PINNED);
static_assert(handle_posix_fd == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
static_assert(location_device == CU_MEM_LOCATION_TYPE_DEVICE);
static_assert(access_read_write == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
static_assert(granularity_minimum == CU_MEM_ALLOC_GRANULARITY_MINIMUM);

}  // namespace
}  // namespace festina::kv_copy
