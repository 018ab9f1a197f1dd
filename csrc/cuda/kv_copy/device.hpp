#pragma once
#include <memory>
#include <utility>

#include "cuda/driver/primary.hpp"
#include "cuda/kv_copy/abi.hpp"

// A device as copies see it: its entry points and its primary context. Memories and copiers share
// one and keep it alive. Immutable; safe from any thread.

namespace festina::kv_copy {

struct Device {
  Device(const std::shared_ptr<const cuda::Driver>& driver, int number)
      : ordinal(number), calls(driver), primary(driver, number) {}

  int ordinal;
  Calls calls;
  cuda::PrimaryContext primary;

  void check(const char* call, int status) const { calls.driver->check(call, status); }
};

}  // namespace festina::kv_copy
