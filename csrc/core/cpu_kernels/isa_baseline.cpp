#define FESTINA_KERNELS kBaselineKernels
#define FESTINA_ISA_NAME "baseline"
#define FESTINA_LANES 4
#define FESTINA_TILE_ROWS 3
#define FESTINA_TILE_X 4
#include "core/cpu_kernels/isa.inl"
