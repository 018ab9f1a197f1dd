#include <cstring>
#include <string>

#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace festina::cpu {

extern const Kernels kBaselineKernels;
#if defined(__x86_64__)
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kWideKernels;
#endif

namespace {

struct Found {
  const Kernels* list[4];
  std::size_t size = 0;

  void add(const Kernels& kernels) { list[size++] = &kernels; }
};

Found detect() {
  Found found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    found.add(kAvx512Kernels);
  }
  if (avx2) found.add(kAvx2Kernels);
  found.add(kBaselineKernels);
  if (avx2) found.add(kWideKernels);
#else
  found.add(kBaselineKernels);
#endif
  return found;
}

}  // namespace

KernelList available_kernels() {
  static const Found found = detect();
  return {found.list, found.size};
}

const Kernels& find_kernels(const char* name) {
  const KernelList all = available_kernels();
  if (*name == '\0') return *all.begin[0];
  std::string names;
  for (std::size_t i = 0; i < all.size; ++i) {
    if (std::strcmp(all.begin[i]->name, name) == 0) return *all.begin[i];
    names += (i == 0 ? "" : ", ") + std::string(all.begin[i]->name);
  }
  throw UnsupportedError("isa", names,
                         "this machine or build has no kernels for '" + std::string(name) + "'");
}

}  // namespace festina::cpu
