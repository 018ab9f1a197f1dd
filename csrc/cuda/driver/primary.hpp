#pragma once
#include <memory>
#include <utility>

#include "cuda/driver/driver.hpp"

// The primary context of a device: the one that PyTorch, CuPy and the CUDA runtime work in too.
//
// Ownership: held as long as the object lives, with the driver.
// Threads: `Current` binds it to the calling thread for its own lifetime; any number at once.
// Raises: `DriverError`.

namespace festina::cuda {

class PrimaryContext {
 public:
  PrimaryContext(std::shared_ptr<const Driver> driver, int ordinal)
      : driver_(std::move(driver)), device_(driver_->device(ordinal)) {
    driver_->check("cuDevicePrimaryCtxRetain", retain_(&context_, device_));
  }
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  ~PrimaryContext() { static_cast<void>(release_(device_)); }

  [[nodiscard]] void* get() const noexcept { return context_; }
  [[nodiscard]] int device() const noexcept { return device_; }

  // Makes the context current on this thread, and what was current before so again at the end.
  class Current {
   public:
    explicit Current(const PrimaryContext& primary) : pop_(primary.pop_) {
      primary.driver_->check("cuCtxPushCurrent", primary.push_(primary.context_));
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    ~Current() {
      void* popped = nullptr;
      static_cast<void>(pop_(&popped));
    }

   private:
    int (*pop_)(void**);
  };

 private:
  std::shared_ptr<const Driver> driver_;
  int device_;
  void* context_ = nullptr;
  int (*retain_)(void**, int) = driver_->function<decltype(retain_)>("cuDevicePrimaryCtxRetain",
                                                                     7000);
  int (*release_)(int) = driver_->function<decltype(release_)>("cuDevicePrimaryCtxRelease", 11000);
  int (*push_)(void*) = driver_->function<decltype(push_)>("cuCtxPushCurrent", 4000);
  int (*pop_)(void**) = driver_->function<decltype(pop_)>("cuCtxPopCurrent", 4000);
};

}  // namespace festina::cuda
