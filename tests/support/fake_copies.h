// The part of the pretended driver that moves memory: "device" memory is shared host memory, the
// copy kernel is a loop, and time is added up, not spent. Included by fake_driver.c alone.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef FAKE_PEER_ACCESS
#define FAKE_PEER_ACCESS 1
#endif
enum { DEVICE, PINNED, PEER };  // kinds of memory; PEER came from another process

typedef unsigned long long Address;

typedef struct {
  Address address;
  size_t size;
  int kind, fd, mapped;
} Allocation;

static Allocation allocations[256];
static char failing[64];  // the call that fails, and with what
static int failing_status;
static int lost;       // a status that every call gives from now on
static int capturing;  // of all streams
static int peers_enabled;
static void* last_stream;  // that a copy was given to
static double seconds;

void fake_fail(const char* call, int status) {
  snprintf(failing, sizeof(failing), "%s", call);
  failing_status = status;
}
void fake_lose(int status) { lost = status; }
void fake_capture(int status) { capturing = status; }
double fake_seconds(void) { return seconds; }
const void* fake_last_stream(void) { return last_stream; }

static int fails(const char* call) {
  if (lost) return lost;
  return strcmp(call, failing) == 0 ? failing_status : 0;
}

#define FAIL_IF_ASKED(call)           \
  do {                                \
    const int status_ = fails(call);  \
    if (status_ != 0) return status_; \
  } while (0)

static Allocation* slot(void) {
  for (size_t i = 0; i < sizeof(allocations) / sizeof(allocations[0]); ++i) {
    if (allocations[i].size == 0) return &allocations[i];
  }
  abort();
}

static Allocation* containing(Address address, size_t size) {
  for (size_t i = 0; i < sizeof(allocations) / sizeof(allocations[0]); ++i) {
    Allocation* one = &allocations[i];
    if (one->size && one->address && one->address <= address &&
        address + size <= one->address + one->size) {
      return one;
    }
  }
  return NULL;
}

static int forget(Address address, int kind) {
  Allocation* one = containing(address, 1);
  if (one == NULL || one->address != address || one->kind != kind) return 1;
  if (kind != PINNED) {
    munmap((void*)(size_t)address, one->size);
    close(one->fd);
  }
  memset(one, 0, sizeof(*one));
  --live;
  return 0;
}

static int map_shared(Address* address, size_t size, int fd, int kind) {
  void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return 2;
  *address = (Address)(size_t)memory;
  *slot() = (Allocation){*address, size, kind, fd, 1};
  ++live;
  return 0;
}

static int anonymous_file(size_t size) {
  const int fd = memfd_create("fake-gpu", 0);
  return fd >= 0 && ftruncate(fd, (off_t)size) == 0 ? fd : -1;
}

static int mem_alloc(Address* address, size_t size) {
  FAIL_IF_ASKED("cuMemAlloc");
  const int fd = depth ? anonymous_file(size) : -1;
  return fd < 0 ? 201 : map_shared(address, size, fd, DEVICE);
}

static int mem_free(Address address) {
  FAIL_IF_ASKED("cuMemFree");
  return forget(address, DEVICE);
}

static int mem_range(Address* base, size_t* size, Address address) {
  const Allocation* one = containing(address, 1);
  if (one == NULL || one->kind != DEVICE) return 1;
  *base = one->address;
  *size = one->size;
  return 0;
}

static int host_alloc(void** pointer, size_t size, unsigned flags) {
  FAIL_IF_ASKED("cuMemHostAlloc");
  if (flags != 1 || !depth) return 1;
  *pointer = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  *slot() = (Allocation){(Address)(size_t)*pointer, size, PINNED, -1, 1};
  ++live;
  return 0;
}

static int host_free(void* pointer) {
  const int status = forget((Address)(size_t)pointer, PINNED);
  if (status == 0) free(pointer);
  return status;
}

static int host_register(void* pointer, size_t size, unsigned flags) {
  FAIL_IF_ASKED("cuMemHostRegister");
  if (flags != 1 || !depth) return 1;
  *slot() = (Allocation){(Address)(size_t)pointer, size, PINNED, -1, 1};
  ++live;
  return 0;
}

static int host_unregister(void* pointer) { return forget((Address)(size_t)pointer, PINNED); }

// Sharing: a handle says where the other process finds the file, whose size it asks for itself.

typedef struct {
  char bytes[64];
} IpcHandle;

static int ipc_get(IpcHandle* handle, Address address) {
  FAIL_IF_ASKED("cuIpcGetMemHandle");
  const Allocation* one = containing(address, 1);
  if (one == NULL || one->kind != DEVICE) return 1;
  memset(handle, 0, sizeof(*handle));
  snprintf(handle->bytes, sizeof(handle->bytes), "/proc/%d/fd/%d", (int)getpid(), one->fd);
  return 0;
}

static int ipc_open(Address* address, IpcHandle handle, unsigned flags) {
  FAIL_IF_ASKED("cuIpcOpenMemHandle");
  if (flags != 1 || !depth) return 1;
  const int fd = open(handle.bytes, O_RDWR);
  if (fd < 0) return 201;
  return map_shared(address, (size_t)lseek(fd, 0, SEEK_END), fd, PEER);
}

static int ipc_close(Address address) { return forget(address, PEER); }

// Virtual memory management: a physical handle is the slot's number plus one.

static int vmm_granularity(size_t* step, const void* properties, int option) {
  (void)properties;
  *step = 65536;
  return option == 0 ? 0 : 1;
}

static int vmm_hold(Address* handle, int fd, size_t size) {
  Allocation* one = slot();
  *one = (Allocation){0, size, DEVICE, fd, 0};
  *handle = (Address)(one - allocations) + 1;
  ++live;
  return 0;
}

static int vmm_create(Address* handle, size_t size, const int* properties, unsigned long long flags) {
  FAIL_IF_ASKED("cuMemCreate");
  // Pinned, exportable by descriptor, on a device.
  if (size % 65536 || properties[0] != 1 || properties[1] != 1 || properties[2] != 1 || flags) {
    return 1;
  }
  return vmm_hold(handle, anonymous_file(size), size);
}

static int vmm_export(void* fd, Address handle, int type, unsigned long long flags) {
  FAIL_IF_ASKED("cuMemExportToShareableHandle");
  *(int*)fd = dup(allocations[handle - 1].fd);
  return type == 1 && flags == 0 ? 0 : 1;
}

static int vmm_import(Address* handle, void* fd, int type) {
  FAIL_IF_ASKED("cuMemImportFromShareableHandle");
  const int own = dup((int)(size_t)fd);
  if (own < 0 || type != 1) return 1;
  return vmm_hold(handle, own, (size_t)lseek(own, 0, SEEK_END));
}

static int vmm_release(Address handle) {
  Allocation* one = &allocations[handle - 1];
  if (one->mapped) return 1;
  close(one->fd);
  memset(one, 0, sizeof(*one));
  --live;
  return 0;
}

static int vmm_reserve(Address* address, size_t size, size_t alignment, Address wish,
                       unsigned long long flags) {
  (void)alignment;
  if (wish || flags) return 1;
  void* memory = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  *address = (Address)(size_t)memory;
  ++live;
  return 0;
}

static int vmm_unreserve(Address address, size_t size) {
  --live;
  return munmap((void*)(size_t)address, size) == 0 ? 0 : 1;
}

static int vmm_map(Address address, size_t size, size_t offset, Address handle,
                   unsigned long long flags) {
  FAIL_IF_ASKED("cuMemMap");
  Allocation* one = &allocations[handle - 1];
  if (size != one->size || offset || flags) return 1;
  void* memory =
      mmap((void*)(size_t)address, size, PROT_NONE, MAP_SHARED | MAP_FIXED, one->fd, 0);
  if (memory == MAP_FAILED) return 2;
  one->address = address;
  one->mapped = 1;
  ++live;
  return 0;
}

static int vmm_unmap(Address address, size_t size) {
  Allocation* one = containing(address, size);
  if (one == NULL) return 1;
  mmap((void*)(size_t)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  one->address = 0;
  one->mapped = 0;
  --live;
  return 0;
}

static int vmm_access(Address address, size_t size, const int* description, size_t count) {
  FAIL_IF_ASKED("cuMemSetAccess");
  if (count != 1 || description[0] != 1 || description[2] != 3) return 1;
  return mprotect((void*)(size_t)address, size, PROT_READ | PROT_WRITE) == 0 ? 0 : 1;
}

// Copies. Both ends must be memory that a GPU reaches, and not on the legacy default stream.

static int move_bytes(Address to, Address from, size_t size, double bytes_per_s) {
  if (!containing(to, size) || !containing(from, size)) return 700;
  memcpy((void*)(size_t)to, (void*)(size_t)from, size);
  seconds += (double)size / bytes_per_s;
  return 0;
}

static int library_load(void** library, const void* code, void* options, void* values,
                        unsigned count, void* library_options, void* library_values,
                        unsigned library_count) {
  (void)options, (void)values, (void)library_options, (void)library_values;
  FAIL_IF_ASKED("cuLibraryLoadData");
  if (code == NULL || count || library_count || !depth) return 1;
  *library = made((Range){0, 0, 0, NULL});
  return 0;
}

static int library_kernel(void** kernel, void* library, const char* name) {
  (void)library;
  FAIL_IF_ASKED("cuLibraryGetKernel");
  *kernel = strcmp(name, "festina_kv_copy_short") == 0  ? (void*)"short"
            : strcmp(name, "festina_kv_copy_long") == 0 ? (void*)"long"
                                                        : NULL;
  return *kernel ? 0 : 500;
}

typedef struct {
  Address src, dst;
  unsigned count, lanes;
  struct {
    Address src, dst, size;
  } runs[1024];
} Table;

static int launch(void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned y1,
                  unsigned z1, unsigned shared, void* stream, void** parameters, void** extra) {
  FAIL_IF_ASKED("cuLaunchKernel");
  if ((size_t)stream < 2 || y != 1 || z != 1 || y1 != 1 || z1 != 1 || shared || extra) return 1;
  last_stream = stream;
  const Table* table = parameters[0];
  const unsigned capacity = strcmp(kernel, "short") == 0 ? 32 : 1024;
  if (table->count == 0 || table->count > capacity || threads % table->lanes) return 1;
  note("launch", (void*)(size_t)x, (void*)(size_t)table->count);
  note("lanes", (void*)(size_t)table->lanes, (void*)(size_t)capacity);
  seconds += 4e-6;
  for (unsigned i = 0; i < table->count; ++i) {
    const int status = move_bytes(table->dst + table->runs[i].dst, table->src + table->runs[i].src,
                                  table->runs[i].size, 25e9);
    if (status != 0) return lost = status;
  }
  return 0;
}

static int copy_batch(Address* to, Address* from, size_t* sizes, size_t count,
                      const int* attributes, const size_t* starts, size_t attribute_count,
                      void* stream) {
  FAIL_IF_ASKED("cuMemcpyBatchAsync");
  if ((size_t)stream < 2 || attribute_count != 1 || starts[0] != 0) return 1;
  if (attributes[0] != 1 || attributes[5] != 1) return 1;  // stream order, overlap with compute
  if (capturing) return 0;  // as the real one does: no error, and no copy in the graph
  last_stream = stream;
  note("batch", NULL, (void*)count);
  for (size_t i = 0; i < count; ++i) {
    seconds += 0.5e-6;
    const int status = move_bytes(to[i], from[i], sizes[i], 50e9);
    if (status != 0) return lost = status;
  }
  return 0;
}

static int copy_one(Address to, Address from, size_t size, void* stream) {
  FAIL_IF_ASKED("cuMemcpyAsync");
  last_stream = stream;
  note("copy", NULL, (void*)size);
  seconds += 3e-6;
  return move_bytes(to, from, size, 50e9);
}

static int is_capturing(void* stream, int* status) {
  (void)stream;
  FAIL_IF_ASKED("cuStreamIsCapturing");
  *status = capturing;
  return 0;
}

static int stream_synchronize(void* stream) {
  (void)stream;
  FAIL_IF_ASKED("cuStreamSynchronize");
  return 0;
}

static int stream_query(void* stream) {
  (void)stream;
  FAIL_IF_ASKED("cuStreamQuery");
  return 0;
}

static int can_access_peer(int* can, int device, int peer) {
  FAIL_IF_ASKED("cuDeviceCanAccessPeer");
  *can = FAKE_PEER_ACCESS && device != peer;
  return 0;
}

static int enable_peer(void* context, unsigned flags) {
  FAIL_IF_ASKED("cuCtxEnablePeerAccess");
  if (flags || context != (void*)&contexts[1]) return 1;
  note("peer", NULL, NULL);
  return peers_enabled++ ? 704 : 0;
}
