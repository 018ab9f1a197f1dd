// Body of every isa_*.cpp: the kernels under the flags and sizes of that file.
#include "core/cpu_kernels/attention.hpp"

namespace festina::cpu {
extern const Kernels FESTINA_KERNELS;
const Kernels FESTINA_KERNELS{FESTINA_ISA_NAME, matmul, embed, rms_norm, rope, gate, add, store_kv,
                              attention, probe, std::size_t{2} * kTileRows * kTileX * kLanes, argmax};
}  // namespace festina::cpu
