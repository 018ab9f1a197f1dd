#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "core/profile_table/error.hpp"

namespace festina {

// A zeroed piece of memory, private to this process or shared by name; unmapped on destruction.
//
// A shared region has one writer, which holds an exclusive lock on it: the kernel drops the lock
// when the writer ends in any way, and keeps the memory, so that a successor can take over.
class Region {
 public:
  Region() = default;
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(file_, other.file_);
    std::swap(name_, other.name_);
    std::swap(writable_, other.writable_);
    return *this;
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    if (data_ != nullptr) munmap(data_, bytes_);
    if (file_ >= 0) ::close(file_);
  }

  static Region anonymous(std::size_t bytes) {
    Region region;
    region.map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    return region;
  }

  // Makes a region of that name and locks it. One left by a dead writer is replaced; its readers
  // keep what they have mapped. Throws ProfileError while its writer lives.
  static Region create(const std::string& name, std::size_t bytes) {
    {
      Region old;
      if (old.open(name, O_RDWR)) {
        old.lock();
        shm_unlink(old.name_.c_str());
      }
    }
    Region region;
    if (!region.open(name, O_RDWR | O_CREAT | O_EXCL)) fail(name, "cannot be created");
    region.lock();
    // Reserved in full: a page missing later would be a SIGBUS in a reader.
    if (const int error = posix_fallocate(region.file_, 0, static_cast<off_t>(bytes)); error != 0) {
      region.unlink();
      errno = error;
      fail(name, "cannot be sized");
    }
    region.map(bytes, PROT_READ | PROT_WRITE, MAP_SHARED);
    return region;
  }

  // Opens a region as its next writer. Throws ProfileError if there is none, or its writer lives.
  static Region take_over(const std::string& name) {
    Region region = existing(name, O_RDWR);
    region.lock();
    region.map(region.file_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED);
    return region;
  }

  // Opens a region for reading only.
  static Region attach(const std::string& name) {
    Region region = existing(name, O_RDONLY);
    region.map(region.file_bytes(), PROT_READ, MAP_SHARED);
    return region;
  }

  // Removes the name; who has mapped the region keeps it. Nothing happens to a private region.
  void unlink() noexcept {
    if (writable_ && !name_.empty()) shm_unlink(name_.c_str());
    name_.clear();
  }

  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const noexcept { return bytes_; }
  bool writable() const noexcept { return writable_; }
  bool shared() const noexcept { return file_ >= 0; }

 private:
  [[noreturn]] static void fail(const std::string& name, const char* what) {
    throw ProfileError("shared memory " + name, std::string(what) + ": " + std::strerror(errno));
  }

  static Region existing(const std::string& name, int flags) {
    Region region;
    if (!region.open(name, flags)) fail(name, "cannot be opened");
    return region;
  }

  bool open(const std::string& name, int flags) {
    name_ = "/" + name;
    file_ = shm_open(name_.c_str(), flags | O_CLOEXEC, 0600);
    return file_ >= 0;
  }

  void lock() {
    if (flock(file_, LOCK_EX | LOCK_NB) != 0) fail(name_.substr(1), "has a living writer");
  }

  std::size_t file_bytes() const {
    struct stat status{};
    if (fstat(file_, &status) != 0 || status.st_size == 0) fail(name_.substr(1), "is empty");
    return static_cast<std::size_t>(status.st_size);
  }

  void map(std::size_t bytes, int protection, int flags) {
    void* data = mmap(nullptr, bytes, protection, flags, file_, 0);
    if (data == MAP_FAILED) fail(name_, "cannot be mapped");
    data_ = data;
    bytes_ = bytes;
    writable_ = (protection & PROT_WRITE) != 0;
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  int file_ = -1;
  std::string name_;
  bool writable_ = false;
};

}  // namespace festina
