#pragma once
#include <cstdint>
#include <vector>

// Where work on a stream really runs: the proof that partitions are what they claim to be.

namespace festina::cuda {

// SM of each of `blocks` blocks of a kernel on `stream` (a cudaStream_t) of device `ordinal`; a
// block lasts 100,000 cycles, so that the others find its SM taken. Waits for the kernel.
// Raises: std::runtime_error naming CUDA's error.
[[nodiscard]] std::vector<std::uint32_t> sm_ids(int ordinal, void* stream, std::uint32_t blocks);

}  // namespace festina::cuda
