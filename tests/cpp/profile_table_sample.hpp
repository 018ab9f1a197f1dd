#pragma once
#include "core/profile_table/table.hpp"

// A small table whose figures follow simple formulas, for tests of the table and of what builds on
// it.
namespace sample {

inline double latency_ms(double work0, double work1, double sms, double clock_mhz) {
  return 1.0 + (0.01 * work0 + 0.0001 * work1) * (1000.0 / clock_mhz) * (100.0 / sms);
}

inline double power_w(double sms, double clock_mhz) {
  return sms * (0.5 + clock_mhz * clock_mhz * 1e-6);
}

// `models` models with the same figures on 4 rungs and 3 clocks.
inline festina::TableSpec spec(int models = 1) {
  festina::TableSpec table;
  table.device = "sample";
  table.sms_total = 100;
  table.memory_bytes = 1ULL << 30;
  table.parked_w = 10;
  table.sms = {20, 40, 80, 100};
  table.clocks_mhz = {500, 1000, 2000};
  table.idle_w = {50, 60, 90};
  for (int i = 0; i < models; ++i) {
    festina::ModelSpec model;
    model.name = "model-" + std::to_string(i);
    model.weight_bytes = 1ULL << 20;
    model.kv_bytes_per_token = 1024;
    model.context_tokens = 4096;
    model.load_ms = 100;
    model.wake_ms = 10;
    model.work0 = {{{16, 64, 256, 1024}, {1, 4, 16}}};
    model.work1 = {{{0, 512, 2048}, {128, 1024}}};
    for (std::size_t p = 0; p < festina::kPhases; ++p) {
      for (const float work0 : model.work0[p]) {
        for (const float work1 : model.work1[p]) {
          for (const std::uint32_t sms : table.sms) {
            for (const std::uint32_t clock : table.clocks_mhz) {
              festina::Cell cell{};
              cell.latency_ms = latency_ms(work0, work1, sms, clock);
              cell.power_w = power_w(sms, clock);
              cell.flops_per_s = 1e12;
              cell.bytes_per_s = 1e11;
              cell.spread = 0.02F;
              cell.latency_factor = 1.0F;
              cell.power_factor = 1.0F;
              cell.samples = 3;
              cell.source = festina::Source::modelled;
              table.cells.push_back(cell);
            }
          }
        }
      }
    }
    table.models.push_back(model);
  }
  return table;
}

}  // namespace sample
