#pragma once

// Kernel bodies are plain functions, so that tests run them as host code under sanitizers.

#if defined(__CUDACC__)
#define FESTINA_HOST_DEVICE __host__ __device__
#else
#define FESTINA_HOST_DEVICE
#endif
