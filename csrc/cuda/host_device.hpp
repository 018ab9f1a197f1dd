#pragma once

// Kernel bodies are plain functions, so that tests run them as host code under sanitizers.
// Loops over small arrays are unrolled, or the arrays would not be in registers.

#if defined(__CUDACC__)
#define FESTINA_HOST_DEVICE __host__ __device__
#define FESTINA_UNROLL _Pragma("unroll")
#else
#define FESTINA_UNROLL
#define FESTINA_HOST_DEVICE
#endif
