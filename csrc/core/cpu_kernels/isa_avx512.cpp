#define FESTINA_KERNELS kAvx512Kernels
#define FESTINA_ISA_NAME "avx512"
#define FESTINA_LANES 16
#define FESTINA_TILE_ROWS 4
#define FESTINA_TILE_X 6
#include "core/cpu_kernels/isa.inl"
