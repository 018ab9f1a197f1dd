#define FESTINA_KERNELS kAvx2Kernels
#define FESTINA_ISA_NAME "avx2"
#define FESTINA_LANES 8
#define FESTINA_TILE_ROWS 3
#define FESTINA_TILE_X 4
#include "core/cpu_kernels/isa.inl"
