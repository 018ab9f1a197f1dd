// A CUDA driver that pretends: enough entry points for the loader, a version set at build time.
#include <stddef.h>
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

int cuDeviceGetCount(int* count) {
  *count = 2;
  return 0;
}

int cuGetErrorName(int status, const char** name) {
  *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 101 ? "CUDA_ERROR_INVALID_DEVICE" : "CUDA_ERROR_UNKNOWN";
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
  *value = attribute == 16 ? 132 : 0;
  return 0;
}

static int green_ctx_create(void) { return 0; }

int cuGetProcAddress_v2(const char* name, void** address, int version, unsigned long long flags,
                        void* found) {
  (void)flags;
  (void)found;
  *address = NULL;
  if (strcmp(name, "cuGreenCtxCreate") == 0 && version >= 12040) {
    *address = (void*)&green_ctx_create;
    return 0;
  }
  return 500;
}
