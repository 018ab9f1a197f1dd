// Compiled where there is a CUDA toolkit, and empty: a header that differs from abi.hpp ends the
// build.
#include <cuda.h>
#include <cudaTypedefs.h>

#include <type_traits>

#include "cuda/green_context/abi.hpp"

namespace festina::cuda {

static_assert(sizeof(Resource) == sizeof(CUdevResource));
static_assert(alignof(Resource) == alignof(CUdevResource));
static_assert(offsetof(Resource, sm) == offsetof(CUdevResource, sm));
static_assert(offsetof(SmResource, sm_count) == offsetof(CUdevSmResource, smCount));
static_assert(offsetof(SmResource, partition_min) == offsetof(CUdevSmResource, minSmPartitionSize));
static_assert(offsetof(SmResource, coscheduled) ==
              offsetof(CUdevSmResource, smCoscheduledAlignment));
static_assert(resource_sm == CU_DEV_RESOURCE_TYPE_SM);
static_assert(default_stream == CU_GREEN_CTX_DEFAULT_STREAM);
static_assert(ignore_coscheduling == CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING);
static_assert(stream_non_blocking == CU_STREAM_NON_BLOCKING);
static_assert(event_disable_timing == CU_EVENT_DISABLE_TIMING);
static_assert(invalid_resource_config == CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION);
static_assert(std::is_pointer_v<CUgreenCtx> && std::is_pointer_v<CUdevResourceDesc>);
static_assert(sizeof(CUdevice) == sizeof(int));
using GreenEvent = CUresult(CUDAAPI*)(CUgreenCtx, CUevent);
static_assert(std::is_same_v<PFN_cuGreenCtxRecordEvent_v12040, GreenEvent>);
static_assert(std::is_same_v<PFN_cuGreenCtxWaitEvent_v12040, GreenEvent>);

}  // namespace festina::cuda
