#include "cuda/kv_copy/table.hpp"

// The copy kernel, in the two sizes of its table. Compiled to a fat binary that the driver loads
// (copier.hpp), so that its launches go through the same checked loader as every other call.

namespace festina::kv_copy {
namespace {

template <std::uint32_t N>
__device__ void copy(const Table<N>& table) {
  copy_table(table, blockIdx.x * block_threads + threadIdx.x, gridDim.x * block_threads);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(block_threads)
    festina_kv_copy_short(const __grid_constant__ Table<short_table> table) {
  copy(table);
}

extern "C" __global__ void __launch_bounds__(block_threads)
    festina_kv_copy_long(const __grid_constant__ Table<long_table> table) {
  copy(table);
}

}  // namespace festina::kv_copy
