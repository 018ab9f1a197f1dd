#pragma once
#include <cstddef>
#include <span>

// The copy kernels as a fat binary, embedded at build time. Empty in builds without CUDA.

namespace festina::kv_copy {

#if FESTINA_HAS_CUDA
[[nodiscard]] std::span<const std::byte> image() noexcept;
#else
[[nodiscard]] inline std::span<const std::byte> image() noexcept { return {}; }
#endif

}  // namespace festina::kv_copy
