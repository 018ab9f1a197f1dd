#include "bindings/module.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "festina's native core: profile table, decisions, CPU kernels.";
  festina::bindings::register_bad_input(m);
  festina::bindings::register_assignment(m);
  festina::bindings::register_build_info(m);
  festina::bindings::register_cpu_kernels(m);
  festina::bindings::register_cpu_decoder(m);
  festina::bindings::register_cuda_driver(m);
  festina::bindings::register_decoder_ops(m);
  festina::bindings::register_green_context(m);
  festina::bindings::register_kernel_error(m);
  festina::bindings::register_kv_copy(m);
  festina::bindings::register_paged_attention(m);
  festina::bindings::register_profile_table(m);
  festina::bindings::register_read_memory(m);
  festina::bindings::register_placement(m);
  festina::bindings::register_operating_point(m);
  festina::bindings::register_clock(m);
  festina::bindings::register_local(m);
  festina::bindings::register_consolidation(m);
  festina::bindings::register_simulator(m);
}
