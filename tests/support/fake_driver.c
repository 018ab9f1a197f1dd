// A CUDA driver that pretends: enough entry points for the loader, a version set at build time.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION 13000
#endif
#ifndef FAKE_INIT_STATUS
#define FAKE_INIT_STATUS 0
#endif

int cuInit(unsigned flags) {
  (void)flags;
  return FAKE_INIT_STATUS;
}

int cuDriverGetVersion(int* version) {
  *version = FAKE_VERSION;
  return 0;
}

#ifndef FAKE_DEVICES
#define FAKE_DEVICES 2
#endif

int cuDeviceGetCount(int* count) {
  *count = FAKE_DEVICES;
  return 0;
}

int cuGetErrorName(int status, const char** name) {
  *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 101 ? "CUDA_ERROR_INVALID_DEVICE"
          : status == 2   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : status == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                          : "CUDA_ERROR_UNKNOWN";
  return 0;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal >= 0 && ordinal < 2 ? 0 : 101;
}

int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  for (int i = 0; i < 16; ++i) {
    uuid[i] = (unsigned char)(16 * device + i);
  }
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  (void)device;
  *value = attribute == 16 ? 132 : 0;  // multiprocessors
  return 0;
}

// Green contexts: partitions are ranges of SMs, in steps of 8, or of 2 when co-scheduling is ignored.

#ifndef FAKE_SMS
#define FAKE_SMS 132
#endif
#ifndef FAKE_MISSING
#define FAKE_MISSING ""
#endif
#ifndef FAKE_CREATE_STATUS_AFTER
#define FAKE_CREATE_STATUS_AFTER 1000000
#endif

typedef struct {
  int type;
  unsigned first_sm;  // in the bytes that are the driver's own
  unsigned char padding[88];
  unsigned sm_count;
  unsigned char rest[44];
} Resource;

typedef struct {
  unsigned first_sm, sm_count;
  int device;            // of the primary context that it belongs to
  const void* context;   // green, of a stream; of an event, the one that it was recorded by last
} Range;

static int live, created;
static char calls[65536];
static Range described;
static int contexts[2];  // the primary ones

int fake_live(void) { return live; }
const char* fake_calls(void) { return calls; }
unsigned fake_first_sm(const Range* stream) { return stream->first_sm; }
unsigned fake_sm_count(const Range* stream) { return stream->sm_count; }
const void* fake_context(const Range* stream) { return stream->context; }

static void note(const char* call, const void* from, const void* to) {
  const size_t used = strlen(calls);
  snprintf(calls + used, sizeof(calls) - used, "%s %llu %llu\n", call,
           (unsigned long long)(size_t)from, (unsigned long long)(size_t)to);
}

static void* made(Range range) {
  Range* object = malloc(sizeof(Range));
  *object = range;
  ++live;
  return object;
}

static int destroyed(void* object) {
  free(object);
  --live;
  return 0;
}

static int primary_retain(void** context, int device) {
  *context = (void*)&contexts[device];
  ++live;
  return 0;
}

static int primary_release(int device) {
  (void)device;
  --live;
  return 0;
}

static int depth;
static int current;  // device of the context that is

static int context_push(void* context) {
  if (context != (void*)&contexts[0] && context != (void*)&contexts[1]) return 201;
  current = context == (void*)&contexts[1];
  ++depth;
  return 0;
}

static int context_pop(void** context) {
  --depth;
  *context = (void*)&contexts[0];
  return 0;
}

static int device_resource(int device, Resource* resource, int type) {
  (void)device;
  memset(resource, 0, sizeof(*resource));
  resource->type = type;
  resource->sm_count = FAKE_SMS;
  return 0;
}

static int split(Resource* groups, unsigned* count, const Resource* input, Resource* rest,
                 unsigned flags, unsigned wanted) {
  const unsigned step = flags & 1U ? 2 : 8;
  const unsigned size = (wanted + step - 1) / step * step;
  if (wanted > input->sm_count) return 915;
  unsigned fit = input->sm_count / size;
  if (fit > *count) fit = *count;
  for (unsigned i = 0; i < fit; ++i) {
    groups[i] = *input;
    groups[i].first_sm = input->first_sm + i * size;
    groups[i].sm_count = size;
  }
  *count = fit;
  *rest = *input;
  rest->first_sm = input->first_sm + fit * size;
  rest->sm_count = input->sm_count - fit * size;
  rest->type = rest->sm_count ? 1 : 0;
  return 0;
}

static int describe(void** description, Resource* resource, unsigned count) {
  described = (Range){resource->first_sm, resource->sm_count, 0, NULL};
  *description = (void*)&described;
  return count == 1 ? 0 : 1;
}

static int green_create(void** context, void* description, int device, unsigned flags) {
  if (flags != 1) return 1;
  if (created++ >= FAKE_CREATE_STATUS_AFTER) return 2;
  *context = made(*(Range*)description);
  ((Range*)*context)->device = device;
  return 0;
}

static int green_resource(void* context, Resource* resource, int type) {
  memset(resource, 0, sizeof(*resource));
  resource->type = type;
  resource->sm_count = ((Range*)context)->sm_count;
  return 0;
}

static int green_stream(void** stream, void* context, unsigned flags, int priority) {
  if (flags != 1 || priority != 0) return 1;
  *stream = made(*(Range*)context);
  ((Range*)*stream)->context = context;
  return 0;
}

static int event_create(void** event, unsigned flags) {
  if (flags != 2 || depth != 1) return 201;  // without timing, in a context that is current
  *event = made((Range){0, 0, current, NULL});
  return 0;
}

#include "fake_copies.h"

// An event and a green context must be of the same primary context, and none of its streams may be
// under capture.

static int green_record(Range* context, Range* event) {
  FAIL_IF_ASKED("cuGreenCtxRecordEvent");
  if (context->device != event->device) return 400;
  if (capturing) return 900;
  event->context = context;
  note("record", event, context);
  return 0;
}

static int green_wait(Range* context, const Range* event) {
  FAIL_IF_ASKED("cuGreenCtxWaitEvent");
  if (context->device != event->device || event->context == NULL) return 400;
  if (capturing) return 900;
  note("wait", event, context);
  return 0;
}

static const struct {
  const char* name;
  int version;
  void* address;
} table[] = {
    {"cuDevicePrimaryCtxRetain", 7000, (void*)&primary_retain},
    {"cuDevicePrimaryCtxRelease", 11000, (void*)&primary_release},
    {"cuCtxPushCurrent", 4000, (void*)&context_push},
    {"cuCtxPopCurrent", 4000, (void*)&context_pop},
    {"cuDeviceGetDevResource", 12040, (void*)&device_resource},
    {"cuDevSmResourceSplitByCount", 12040, (void*)&split},
    {"cuDevResourceGenerateDesc", 12040, (void*)&describe},
    {"cuGreenCtxCreate", 12040, (void*)&green_create},
    {"cuGreenCtxDestroy", 12040, (void*)&destroyed},
    {"cuGreenCtxGetDevResource", 12040, (void*)&green_resource},
    {"cuGreenCtxStreamCreate", 12050, (void*)&green_stream},
    {"cuStreamDestroy", 4000, (void*)&destroyed},
    {"cuEventCreate", 2000, (void*)&event_create},
    {"cuEventDestroy", 4000, (void*)&destroyed},
    {"cuGreenCtxRecordEvent", 12040, (void*)&green_record},
    {"cuGreenCtxWaitEvent", 12040, (void*)&green_wait},
    {"cuLibraryLoadData", 12000, (void*)&library_load},
    {"cuLibraryUnload", 12000, (void*)&destroyed},
    {"cuLibraryGetKernel", 12000, (void*)&library_kernel},
    {"cuLaunchKernel", 4000, (void*)&launch},
    {"cuMemcpyBatchAsync", 13000, (void*)&copy_batch},
    {"cuMemcpyAsync", 4000, (void*)&copy_one},
    {"cuStreamIsCapturing", 10000, (void*)&is_capturing},
    {"cuStreamSynchronize", 2000, (void*)&stream_synchronize},
    {"cuStreamQuery", 2000, (void*)&stream_query},
    {"cuDeviceCanAccessPeer", 4000, (void*)&can_access_peer},
    {"cuCtxEnablePeerAccess", 4000, (void*)&enable_peer},
    {"cuMemAlloc", 3020, (void*)&mem_alloc},
    {"cuMemFree", 3020, (void*)&mem_free},
    {"cuMemGetAddressRange", 3020, (void*)&mem_range},
    {"cuMemHostAlloc", 2020, (void*)&host_alloc},
    {"cuMemFreeHost", 2000, (void*)&host_free},
    {"cuMemHostRegister", 6050, (void*)&host_register},
    {"cuMemHostUnregister", 4000, (void*)&host_unregister},
    {"cuIpcGetMemHandle", 4010, (void*)&ipc_get},
    {"cuIpcOpenMemHandle", 11000, (void*)&ipc_open},
    {"cuIpcCloseMemHandle", 4010, (void*)&ipc_close},
    {"cuMemGetAllocationGranularity", 10020, (void*)&vmm_granularity},
    {"cuMemCreate", 10020, (void*)&vmm_create},
    {"cuMemRelease", 10020, (void*)&vmm_release},
    {"cuMemExportToShareableHandle", 10020, (void*)&vmm_export},
    {"cuMemImportFromShareableHandle", 10020, (void*)&vmm_import},
    {"cuMemAddressReserve", 10020, (void*)&vmm_reserve},
    {"cuMemAddressFree", 10020, (void*)&vmm_unreserve},
    {"cuMemMap", 10020, (void*)&vmm_map},
    {"cuMemUnmap", 10020, (void*)&vmm_unmap},
    {"cuMemSetAccess", 10020, (void*)&vmm_access},
};

int cuGetProcAddress_v2(const char* name, void** address, int version, unsigned long long flags,
                        void* found) {
  (void)flags;
  (void)found;
  *address = NULL;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); ++i) {
    if (strcmp(name, table[i].name) == 0 && strcmp(name, FAKE_MISSING) != 0 &&
        table[i].version <= version && table[i].version <= FAKE_VERSION) {
      *address = table[i].address;
      return 0;
    }
  }
  return 500;
}
