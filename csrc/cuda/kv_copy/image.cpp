#include "cuda/kv_copy/image.hpp"

namespace festina::kv_copy {
namespace {

alignas(16) constexpr unsigned char bytes[] = {
#include "kv_copy_fatbin.inc"
};

}  // namespace

std::span<const std::byte> image() noexcept { return std::as_bytes(std::span(bytes)); }

}  // namespace festina::kv_copy
