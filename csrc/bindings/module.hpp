#pragma once
#include <pybind11/pybind11.h>

// Each file of bindings/ registers its own classes through one function declared here.
namespace festina::bindings {
void register_assignment(pybind11::module_& m);
void register_bad_input(pybind11::module_& m);
void register_build_info(pybind11::module_& m);
void register_clock(pybind11::module_& m);
void register_consolidation(pybind11::module_& m);
void register_cpu_decoder(pybind11::module_& m);
void register_cpu_kernels(pybind11::module_& m);
void register_cuda_driver(pybind11::module_& m);
void register_decoder_ops(pybind11::module_& m);
void register_green_context(pybind11::module_& m);
void register_kernel_error(pybind11::module_& m);
void register_kv_copy(pybind11::module_& m);
void register_local(pybind11::module_& m);
void register_operating_point(pybind11::module_& m);
void register_paged_attention(pybind11::module_& m);
void register_placement(pybind11::module_& m);
void register_profile_table(pybind11::module_& m);
void register_read_memory(pybind11::module_& m);
void register_simulator(pybind11::module_& m);
}  // namespace festina::bindings
