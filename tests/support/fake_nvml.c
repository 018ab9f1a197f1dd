// An NVML that pretends: one H100, every change of its clock written to the file FAKE_NVML_LOG.
//   -DNO_PERMISSION   clocks may not be set
//   -DLOST            the GPU has fallen off the bus
//   -DRESET           somebody has to reset it
//   -DNO_LOCK         the driver has no function to lock clocks
//   -DNO_INSTANT      the driver has no instant power
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void* Device;
static const char uuid_text[] = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f";

#ifdef LOST
#define SENSOR_STATUS 15
#elif defined(RESET)
#define SENSOR_STATUS 16
#else
#define SENSOR_STATUS 0
#endif

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return flags ? 2 : 0; }
int nvmlShutdown(void) { return 0; }

int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  snprintf(version, length, "580.00");
  return 0;
}

const char* nvmlErrorString(int status) {
  return status == 4 ? "Insufficient Permissions" : status == 15 ? "GPU is lost" : "Error";
}

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 1;
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  *device = (Device)uuid_text;
  return index == 0 ? 0 : 6;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, Device* device) {
  *device = (Device)uuid_text;
  return strcmp(uuid, uuid_text) == 0 ? 0 : 6;
}

int nvmlDeviceGetUUID(Device device, char* uuid, unsigned length) {
  snprintf(uuid, length, "%s", (const char*)device);
  return 0;
}

int nvmlDeviceGetName(Device device, char* name, unsigned length) {
  (void)device;
  snprintf(name, length, "NVIDIA H100 80GB HBM3");
  return 0;
}

struct Memory {
  unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(Device device, struct Memory* memory) {
  (void)device;
  memory->total = 80ULL << 30;
  memory->free = 70ULL << 30;
  memory->used = 10ULL << 30;
  return 0;
}

struct Field {
  unsigned id, scope;
  long long timestamp, latency;
  int type, status;
  union {
    unsigned ui;
    unsigned long long ull;
  } value;
};

int nvmlDeviceGetFieldValues(Device device, int count, struct Field* fields) {
  (void)device;
  for (int i = 0; i < count; ++i) {
#ifdef NO_INSTANT
    fields[i].status = 3;
#else
    fields[i].status = fields[i].id == 186 ? SENSOR_STATUS : 3;
    fields[i].value.ui = 123456;
#endif
  }
  return SENSOR_STATUS;
}

int nvmlDeviceGetPowerUsage(Device device, unsigned* power_mw) {
  (void)device;
  *power_mw = 100000;
  return SENSOR_STATUS;
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned* limit_mw) {
  (void)device;
  *limit_mw = 700000;
  return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long* energy_mj) {
  (void)device;
  *energy_mj = 5000500;
  return SENSOR_STATUS;
}

int nvmlDeviceGetClockInfo(Device device, int kind, unsigned* clock) {
  (void)device;
  *clock = kind == 1 ? 345 : 2619;
  return SENSOR_STATUS;
}

int nvmlDeviceGetTemperature(Device device, int sensor, unsigned* temperature) {
  (void)device;
  *temperature = sensor == 0 ? 31 : 0;
  return SENSOR_STATUS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long* reasons) {
  (void)device;
  *reasons = 0x5;
  return SENSOR_STATUS;
}

int nvmlDeviceGetSupportedMemoryClocks(Device device, unsigned* count, unsigned* clocks) {
  (void)device;
  const unsigned room = *count;
  *count = 2;
  if (room < 2) return 7;
  clocks[0] = 1593;
  clocks[1] = 2619;
  return 0;
}

int nvmlDeviceGetSupportedGraphicsClocks(Device device, unsigned memory, unsigned* count,
                                         unsigned* clocks) {
  (void)device;
  const unsigned room = *count;
  *count = memory == 2619 ? 4 : 1;
  if (room < *count) return 7;
  for (unsigned i = 0; i < *count; ++i) clocks[i] = 1980 - 495 * i;
  return 0;
}

#ifndef NO_LOCK
static int change(const char* text, unsigned low, unsigned high) {
#ifdef NO_PERMISSION
  const int status = 4;
#else
  const int status = SENSOR_STATUS;
#endif
  const char* path = getenv("FAKE_NVML_LOG");
  FILE* log = path ? fopen(path, "a") : NULL;
  if (log) {
    fprintf(log, "%d %s %u %u\n", (int)getpid(), text, low, high);
    fclose(log);
  }
  return status;
}

int nvmlDeviceSetGpuLockedClocks(Device device, unsigned low, unsigned high) {
  (void)device;
  return change("lock", low, high);
}

int nvmlDeviceResetGpuLockedClocks(Device device) {
  (void)device;
  return change("reset", 0, 0);
}
#endif
