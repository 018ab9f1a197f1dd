#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cuda/kv_copy/device.hpp"

// Memory that copies reach, however it came about.
//
// Ownership: `Memory` gives back what it took when it ends, and holds the device until then. The
// caller waits for copies first. Not thread-safe; not to be used in a forked child.
// Raises: `DriverError` with the call's name; then nothing is held.

namespace festina::kv_copy {

class Memory {
 public:
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory(Memory&&) = delete;
  Memory& operator=(Memory&&) = delete;
  ~Memory() {
    try {
      static_cast<void>(undo());
    } catch (const cuda::DriverError&) {  // the device is lost, and its memory with it
    }
  }

  [[nodiscard]] Address address() const noexcept { return address_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool on_host() const noexcept { return on_host_; }
  [[nodiscard]] bool held() const noexcept { return !steps_.empty(); }  // until it is closed

  // Gives it back now; raises what the destructor would have to keep to itself.
  void close() {
    const auto [call, status] = undo();
    device_->check(call, status);
  }

  // On the device, by cuMemAlloc: the kind that an IPC handle can share.
  static std::unique_ptr<Memory> allocate(std::shared_ptr<const Device> device, std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const auto& calls = memory->device_->calls;
    memory->take("cuMemAlloc", calls.allocate(&memory->address_, size), "cuMemFree",
                 [&calls, m = memory.get()] { return calls.free(m->address_); });
    return memory;
  }

  // In pinned host memory, which all devices reach.
  static std::unique_ptr<Memory> pinned(std::shared_ptr<const Device> device, std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const auto& calls = memory->device_->calls;
    void* pointer = nullptr;
    const int status = calls.host_allocate(&pointer, size, host_portable);
    memory->take("cuMemHostAlloc", status, "cuMemFreeHost",
                 [&calls, pointer] { return calls.host_free(pointer); });
    memory->address_ = reinterpret_cast<std::uintptr_t>(pointer);
    memory->on_host_ = true;
    return memory;
  }

  // Pins host memory of the caller's, who keeps it alive: shared memory between processes, say.
  static std::unique_ptr<Memory> pin(std::shared_ptr<const Device> device, void* pointer,
                                     std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const auto& calls = memory->device_->calls;
    memory->on_host_ = true;
    memory->take("cuMemHostRegister", calls.host_register(pointer, size, host_portable),
                 "cuMemHostUnregister",
                 [&calls, pointer] { return calls.host_unregister(pointer); });
    memory->address_ = reinterpret_cast<std::uintptr_t>(pointer);
    return memory;
  }

  // What another process has allocated, by its handle; all of that allocation.
  static std::unique_ptr<Memory> open(std::shared_ptr<const Device> device, const IpcHandle& handle,
                                      std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const auto& calls = memory->device_->calls;
    memory->take("cuIpcOpenMemHandle", calls.ipc_open(&memory->address_, handle, ipc_lazy_peer),
                 "cuIpcCloseMemHandle",
                 [&calls, m = memory.get()] { return calls.ipc_close(m->address_); });
    return memory;
  }

  // On the device, to be shared by a file descriptor; `size` is rounded up as the device wants it.
  static std::unique_ptr<Memory> create(std::shared_ptr<const Device> device, std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const Device& on = *memory->device_;
    AllocationProperties properties{};
    properties.type = allocation_pinned;
    properties.handle_types = handle_posix_fd;
    properties.location = {location_device, on.primary.device()};
    std::size_t step = 0;
    on.check("cuMemGetAllocationGranularity",
             on.calls.granularity(&step, &properties, granularity_minimum));
    memory->size_ = (size + step - 1) / step * step;
    memory->hold("cuMemCreate", on.calls.create(&memory->handle_, memory->size_, &properties, 0));
    return memory;
  }

  // The other process's end of `create`: `fd` stays the caller's, `size` is what the maker rounded
  // up to.
  static std::unique_ptr<Memory> import(std::shared_ptr<const Device> device, int fd,
                                        std::size_t size) {
    auto memory = make(std::move(device), size);
    const Current current(memory->device_->primary);
    const auto& calls = memory->device_->calls;
    auto* os_handle = reinterpret_cast<void*>(static_cast<std::intptr_t>(fd));
    memory->hold("cuMemImportFromShareableHandle",
                 calls.import_handle(&memory->handle_, os_handle, handle_posix_fd));
    return memory;
  }

  // A new file descriptor, the caller's to close. Only of memory made by `create`.
  [[nodiscard]] int export_fd() const {
    if (handle_ == 0) {
      throw std::invalid_argument("memory: expected one made to be shared by descriptor");
    }
    int fd = -1;
    device_->check("cuMemExportToShareableHandle",
                   device_->calls.export_handle(&fd, handle_, handle_posix_fd, 0));
    return fd;
  }

 private:
  using Current = cuda::PrimaryContext::Current;

  struct Step {
    const char* call;
    std::function<int()> undo;
  };

  Memory(std::shared_ptr<const Device> device, std::size_t size)
      : device_(std::move(device)), size_(size) {
    if (size == 0) {
      throw std::invalid_argument("size: expected at least one byte");
    }
  }

  static std::unique_ptr<Memory> make(std::shared_ptr<const Device> device, std::size_t size) {
    std::unique_ptr<Memory> memory(new Memory(std::move(device), size));
    memory->steps_.reserve(4);
    return memory;
  }

  void take(const char* call, int status, const char* undo_call, std::function<int()> undo) {
    device_->check(call, status);
    steps_.push_back({undo_call, std::move(undo)});
  }

  // Takes a physical allocation and maps it where this device can read and write it.
  void hold(const char* call, int status) {
    const auto& calls = device_->calls;
    take(call, status, "cuMemRelease", [this, &calls] { return calls.release(handle_); });
    take("cuMemAddressReserve", calls.reserve(&address_, size_, 0, 0, 0), "cuMemAddressFree",
         [this, &calls] { return calls.unreserve(address_, size_); });
    take("cuMemMap", calls.map(address_, size_, 0, handle_, 0), "cuMemUnmap",
         [this, &calls] { return calls.unmap(address_, size_); });
    const AccessDescription access{{location_device, device_->primary.device()}, access_read_write};
    device_->check("cuMemSetAccess", calls.set_access(address_, size_, &access, 1));
  }

  // Undoes every step, the last first; the first call that failed, and its status.
  std::pair<const char*, int> undo() {
    std::pair<const char*, int> failed{"", 0};
    if (steps_.empty()) {
      return failed;
    }
    const Current current(device_->primary);
    while (!steps_.empty()) {
      const int status = steps_.back().undo();
      if (status != 0 && failed.second == 0) {
        failed = {steps_.back().call, status};
      }
      steps_.pop_back();
    }
    return failed;
  }

  std::shared_ptr<const Device> device_;
  Address address_ = 0;
  std::size_t size_;
  Address handle_ = 0;
  bool on_host_ = false;
  std::vector<Step> steps_;
};

}  // namespace festina::kv_copy
