#pragma once
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

// The CUDA driver, loaded at run time. libcuda is never linked: the same binary starts on a machine
// without a driver and says so when asked. No CUDA header is needed, so CPU-only builds have it
// too.
//
// Ownership: `Driver` keeps the library open as long as it lives; symbols die with it.
// Threads: immutable after `open`; all members are safe to call from any thread.
// Raises: `DriverError`, never a crash, for an absent, too old or failing driver.

namespace festina::cuda {

enum class DriverFault : std::uint8_t {
  absent,
  too_old,
  symbol_absent,
  call_failed,
  no_resources,
  capturing,    // the stream is being captured, and the call would be left out of the graph
  device_lost,  // the context is unusable from now on: only a new process helps
};

class DriverError : public std::runtime_error {
 public:
  DriverError(DriverFault fault, const std::string& what)
      : std::runtime_error(what), fault_(fault) {}
  [[nodiscard]] DriverFault fault() const noexcept { return fault_; }

 private:
  DriverFault fault_;
};

class Driver {
 public:
  // Oldest driver with green contexts (12.4). Versions are CUDA's: 1000·major + 10·minor.
  static constexpr int version_min = 12040;

  // Loads `library` and initialises it.
  static Driver open(const std::string& library = "libcuda.so.1") {
    Library handle(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (!handle) {
      throw DriverError(DriverFault::absent, "no CUDA driver: cannot load " + library);
    }
    Driver driver(std::move(handle));
    driver.check("cuInit", driver.entry<int (*)(unsigned)>("cuInit")(0U));
    driver.check("cuDriverGetVersion",
                 driver.entry<int (*)(int*)>("cuDriverGetVersion")(&driver.version_));
    if (driver.version_ < version_min) {
      throw DriverError(DriverFault::too_old, "CUDA driver " + std::to_string(driver.version_) +
                                                  " is older than " + std::to_string(version_min));
    }
    driver.get_proc_address_ = driver.entry<GetProcAddress>("cuGetProcAddress_v2");
    return driver;
  }

  [[nodiscard]] int version() const noexcept { return version_; }

  [[nodiscard]] int device_count() const {
    int count = 0;
    check("cuDeviceGetCount", entry<int (*)(int*)>("cuDeviceGetCount")(&count));
    return count;
  }

  // The device that this process sees under `ordinal`, as the driver's handle.
  [[nodiscard]] int device(int ordinal) const {
    int device = 0;
    check("cuDeviceGet", entry<int (*)(int*, int)>("cuDeviceGet")(&device, ordinal));
    return device;
  }

  // Its identity as NVML writes it: "GPU-" and 8-4-4-4-12 hexadecimal digits.
  [[nodiscard]] std::string device_uuid(int ordinal) const {
    std::array<unsigned char, 16> uuid{};
    const auto call = entry<int (*)(unsigned char*, int)>("cuDeviceGetUuid_v2");
    check("cuDeviceGetUuid", call(uuid.data(), device(ordinal)));
    std::string text = "GPU-";
    for (std::size_t i = 0; i < uuid.size(); ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) {
        text += '-';
      }
      text += "0123456789abcdef"[uuid[i] >> 4U];
      text += "0123456789abcdef"[uuid[i] & 15U];
    }
    return text;
  }

  [[nodiscard]] unsigned sm_count(int ordinal) const {
    constexpr int multiprocessor_count = 16;  // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    int count = 0;
    const auto call = entry<int (*)(int*, int, int)>("cuDeviceGetAttribute");
    check("cuDeviceGetAttribute", call(&count, multiprocessor_count, device(ordinal)));
    return static_cast<unsigned>(count);
  }

  // The entry point of `name` with the ABI of CUDA `cuda_version`. A plain dlsym would give the
  // oldest ABI of names that the header maps to _v2 and later.
  [[nodiscard]] void* symbol(const char* name, int cuda_version) const {
    void* address = nullptr;
    const int status = get_proc_address_(name, &address, cuda_version, 0, nullptr);
    if (status != 0 || address == nullptr) {
      throw DriverError(DriverFault::symbol_absent, std::string("this CUDA driver has no ") + name +
                                                        " of CUDA " + std::to_string(cuda_version));
    }
    return address;
  }

  template <typename Function>
  [[nodiscard]] Function function(const char* name, int cuda_version) const {
    return reinterpret_cast<Function>(symbol(name, cuda_version));
  }

  // Raises the error that `status`, the answer of `call`, stands for.
  void check(const char* call, int status) const {
    if (status == 0) {
      return;
    }
    std::string text = std::string(call) + " failed with " + std::to_string(status);
    if (void* address = dlsym(library_.get(), "cuGetErrorName"); address != nullptr) {
      const char* name = nullptr;
      if (reinterpret_cast<int (*)(int, const char**)>(address)(status, &name) == 0) {
        text += std::string(" (") + name + ")";
      }
    }
    throw DriverError(fault_of(status), text);
  }

 private:
  static DriverFault fault_of(int status) noexcept {
    constexpr int capture_unsupported = 900;  // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    if (status == capture_unsupported) {
      return DriverFault::capturing;
    }
    return ends_context(status) ? DriverFault::device_lost : DriverFault::call_failed;
  }

  // Statuses after which every further call on the context fails too (cuda.h says of each that the
  // process must be ended and started again), and those of a device that fell off the bus.
  static bool ends_context(int status) noexcept {
    constexpr std::array<int, 15> sticky = {
        46,                                           // DEVICE_UNAVAILABLE
        214, 220, 226,                                // ECC, NVLink, contained error
        700, 702, 709, 710, 714, 715, 716, 717, 718,  // illegal address … invalid PC
        719, 721,                                     // launch failed, tensor memory leak
    };
    return std::find(sticky.begin(), sticky.end(), status) != sticky.end();
  }

  struct Closer {
    void operator()(void* handle) const noexcept { dlclose(handle); }
  };
  using Library = std::unique_ptr<void, Closer>;
  using GetProcAddress = int (*)(const char*, void**, int, std::uint64_t, void*);

  explicit Driver(Library library) : library_(std::move(library)) {}

  template <typename Function>
  [[nodiscard]] Function entry(const char* name) const {
    void* address = dlsym(library_.get(), name);
    if (address == nullptr) {
      throw DriverError(DriverFault::symbol_absent, std::string("this CUDA driver has no ") + name);
    }
    return reinterpret_cast<Function>(address);
  }

  Library library_;
  GetProcAddress get_proc_address_ = nullptr;
  int version_ = 0;
};

}  // namespace festina::cuda
