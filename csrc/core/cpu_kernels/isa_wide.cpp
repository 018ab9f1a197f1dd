// The 16-lane source of AVX-512 on AVX2, so that machines without AVX-512 can test it.
#define FESTINA_KERNELS kWideKernels
#define FESTINA_ISA_NAME "avx2-wide"
#define FESTINA_LANES 16
#define FESTINA_TILE_ROWS 2
#define FESTINA_TILE_X 3
#include "core/cpu_kernels/isa.inl"
