#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "core/profile_table/cell.hpp"
#include "core/profile_table/error.hpp"
#include "core/profile_table/layout.hpp"
#include "core/profile_table/ring.hpp"
#include "core/profile_table/view.hpp"

namespace festina {

// What a table is made from. Axes ascend strictly.
struct ModelSpec {
  std::string name;
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes_per_token = 0;
  std::uint64_t context_tokens = 0;
  double load_ms = 0;  // cold load of the weights
  double wake_ms = 0;  // from parked to ready
  std::array<std::vector<float>, kPhases> work0;
  std::array<std::vector<float>, kPhases> work1;
};

struct TableSpec {
  std::string device;
  std::uint32_t sms_total = 0;
  std::uint64_t memory_bytes = 0;
  double parked_w = 0;
  double power_cap_w = std::numeric_limits<double>::infinity();
  std::vector<std::uint32_t> sms;         // the device's rungs
  std::vector<std::uint32_t> clocks_mhz;  // a device without clocks has the one clock 0
  std::vector<float> idle_w;              // per clock
  std::vector<ModelSpec> models;
  std::vector<Cell>
      cells;  // models in order, then prefill and decode, then [work0][work1][rung][clock]
};

}  // namespace festina

// Making, copying and checking the region of a table.
namespace festina::build {

inline constexpr std::uint32_t kCellsMax = 1U << 26;
inline constexpr std::uint32_t kCountMax = 1U << 20;

inline layout::Counts counts(const TableSpec& spec) {
  layout::Counts n{};
  n.rungs = static_cast<std::uint32_t>(spec.sms.size());
  n.clocks = static_cast<std::uint32_t>(spec.clocks_mhz.size());
  n.models = static_cast<std::uint32_t>(spec.models.size());
  for (const ModelSpec& m : spec.models) {
    for (std::size_t p = 0; p < kPhases; ++p) {
      n.cells +=
          static_cast<std::uint32_t>(m.work0[p].size() * m.work1[p].size()) * n.rungs * n.clocks;
    }
  }
  return n;
}

template <class T>
bool ascending(const std::vector<T>& values) {
  return !values.empty() &&
         std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
}

inline void check(const std::string& field, bool good, const char* expected) {
  if (!good) throw ProfileError(field, "is inconsistent", expected);
}

inline void check_axis(const std::string& field, const std::vector<float>& knots) {
  const bool finite = std::all_of(knots.begin(), knots.end(),
                                  [](float knot) { return std::isfinite(knot) && knot >= 0; });
  check(field, finite && ascending(knots) && knots.size() <= layout::kKnotsMax,
        "1 to 16 ascending knots, at least 0");
}

inline void check_cell(const Cell& cell, std::size_t index) {
  const auto figure = [&](const char* name, double value, bool zero_allowed) {
    if (std::isfinite(value) && (zero_allowed ? value >= 0 : value > 0)) return;
    throw ProfileError("cells[" + std::to_string(index) + "]." + name, "is inconsistent",
                       zero_allowed ? "a number >= 0" : "a number > 0");
  };
  figure("latency_ms", cell.latency_ms, false);
  figure("power_w", cell.power_w, true);
  figure("flops_per_s", cell.flops_per_s, true);
  figure("bytes_per_s", cell.bytes_per_s, true);
  figure("spread", cell.spread, true);
  figure("latency_factor", cell.latency_factor, false);
  figure("power_factor", cell.power_factor, false);
  if (cell.source > Source::corrected) {
    throw ProfileError("cells[" + std::to_string(index) + "].source", "is inconsistent",
                       "measured, modelled or corrected");
  }
}

// Throws ProfileError naming the first part of `spec` that does not fit the rest.
inline void check(const TableSpec& spec) {
  check("device", spec.device.size() < layout::kNameBytes, "a name of at most 127 bytes");
  check("sms", ascending(spec.sms), "ascending rungs");
  check("clocks_mhz", ascending(spec.clocks_mhz), "ascending clocks");
  check("idle_w", spec.idle_w.size() == spec.clocks_mhz.size(), "one power per clock");
  check("models", !spec.models.empty(), "at least one model");
  for (const ModelSpec& m : spec.models) {
    check("models." + m.name, !m.name.empty() && m.name.size() < layout::kNameBytes,
          "a name of 1 to 127 bytes");
    for (std::size_t p = 0; p < kPhases; ++p) {
      const std::string field = "models." + m.name + (p == 0 ? ".prefill" : ".decode");
      check_axis(field + ".work0", m.work0[p]);
      check_axis(field + ".work1", m.work1[p]);
    }
  }
  const layout::Counts n = counts(spec);
  check("cells", n.cells <= kCellsMax && spec.cells.size() == n.cells, "a full grid");
  for (std::size_t i = 0; i < spec.cells.size(); ++i) check_cell(spec.cells[i], i);
}

// Bytes of the region for `spec`, which is checked.
inline std::size_t region_bytes(const TableSpec& spec) {
  check(spec);
  return layout::offsets(counts(spec)).end;
}

template <class T>
T* at(std::byte* region, std::size_t offset) {
  return reinterpret_cast<T*>(region + offset);
}

inline void put_name(std::array<char, layout::kNameBytes>& out, const std::string& name) {
  out.fill('\0');
  std::copy(name.begin(), name.end(), out.begin());
}

inline layout::Axis axis(const std::vector<float>& knots) {
  layout::Axis axis{};
  axis.knots.fill(std::numeric_limits<float>::infinity());
  std::copy(knots.begin(), knots.end(), axis.knots.begin());
  for (std::size_t i = 0; i + 1 < knots.size(); ++i) {
    axis.inverse_gaps[i] = 1.0F / (knots[i + 1] - knots[i]);
  }
  axis.count = static_cast<std::uint32_t>(knots.size());
  axis.last_gap = axis.count > 1 ? axis.count - 2 : 0;
  axis.inverse_last = knots.back() > 0 ? 1.0F / knots.back() : 0.0F;
  return axis;
}

inline void mirror(std::byte* region, const layout::Counts& n, std::size_t index,
                   const Cell& cell) noexcept {
  const auto offset = layout::offsets(n);
  const Cost cost{static_cast<float>(cell.latency_ms), static_cast<float>(cell.power_w)};
  const Traits traits{cell.spread, static_cast<float>(cell.bytes_per_s)};
  at<std::atomic<std::uint64_t>>(region, offset.costs)[index].store(
      std::bit_cast<std::uint64_t>(cost), std::memory_order_relaxed);
  at<std::atomic<std::uint64_t>>(region, offset.traits)[index].store(
      std::bit_cast<std::uint64_t>(traits), std::memory_order_relaxed);
}

inline void put_cell(std::byte* region, const layout::Counts& n, std::size_t index,
                     const Cell& cell) {
  const auto offset = layout::offsets(n);
  auto words = std::bit_cast<std::array<std::uint64_t, kCellWords>>(cell);
  words.back() = 0;  // the version
  ring::Slot& slot = at<ring::Slot>(region, offset.cells)[index];
  for (std::size_t i = 0; i < kCellWords; ++i) {
    slot.words[i].store(words[i], std::memory_order_relaxed);
  }
  mirror(region, n, index, cell);
}

inline void put_models(const TableSpec& spec, std::byte* region, const layout::Offsets& offset) {
  const auto points = static_cast<std::uint32_t>(spec.sms.size() * spec.clocks_mhz.size());
  std::uint32_t first_cell = 0;
  for (std::size_t i = 0; i < spec.models.size(); ++i) {
    const ModelSpec& from = spec.models[i];
    layout::Model& to = at<layout::Model>(region, offset.models)[i];
    put_name(to.name, from.name);
    to.weight_bytes = from.weight_bytes;
    to.kv_bytes_per_token = from.kv_bytes_per_token;
    to.context_tokens = from.context_tokens;
    to.load_ms = from.load_ms;
    to.wake_ms = from.wake_ms;
    for (std::size_t p = 0; p < kPhases; ++p) {
      layout::Grid& grid = to.grids[p];
      grid.first_cell = first_cell;
      grid.work0 = axis(from.work0[p]);
      grid.work1 = axis(from.work1[p]);
      first_cell += grid.work0.count * grid.work1.count * points;
    }
  }
}

// Writes a checked `spec` into a zeroed region of `region_bytes(spec)`.
inline void fill(const TableSpec& spec, std::byte* region) {
  auto* header = new (region) layout::Header{};
  const layout::Counts n = counts(spec);
  const auto offset = layout::offsets(n);
  header->version = layout::kVersion;
  header->counts = n;
  header->sms_total = spec.sms_total;
  header->region_bytes = offset.end;
  header->memory_bytes = spec.memory_bytes;
  header->parked_w = spec.parked_w;
  header->power_cap_w = spec.power_cap_w;
  put_name(header->device, spec.device);
  header->epoch.store(1, std::memory_order_relaxed);
  std::copy(spec.sms.begin(), spec.sms.end(), at<std::uint32_t>(region, offset.sms));
  std::copy(spec.clocks_mhz.begin(), spec.clocks_mhz.end(),
            at<std::uint32_t>(region, offset.clocks));
  std::copy(spec.idle_w.begin(), spec.idle_w.end(), at<float>(region, offset.idle_w));
  put_models(spec, region, offset);
  for (std::size_t i = 0; i < spec.cells.size(); ++i) put_cell(region, n, i, spec.cells[i]);
  header->magic.store(layout::kMagic, std::memory_order_release);
}

// Writes the table behind `view`, as it is now, into a zeroed region of the same size.
inline void copy(const ProfileView& view, std::byte* region) {
  const layout::Header& from = view.header();
  const auto offset = layout::offsets(from.counts);
  auto* header = new (region) layout::Header{};
  header->version = from.version;
  header->counts = from.counts;
  header->sms_total = from.sms_total;
  header->region_bytes = from.region_bytes;
  header->memory_bytes = from.memory_bytes;
  header->parked_w = from.parked_w;
  header->power_cap_w = from.power_cap_w;
  header->device = from.device;
  header->epoch.store(1, std::memory_order_relaxed);
  const auto* source = reinterpret_cast<const std::byte*>(&from);
  std::copy(source + offset.sms, source + offset.heads, region + offset.sms);
  for (std::size_t i = 0; i < view.cells(); ++i) put_cell(region, from.counts, i, view.cell(i));
  header->magic.store(layout::kMagic, std::memory_order_release);
}

inline bool fits(const layout::Axis& axis) {
  return axis.count > 0 && axis.count <= layout::kKnotsMax && axis.last_gap < axis.count &&
         axis.last_gap + 2 <= std::max(axis.count, 2U);
}

// Throws ProfileError unless `bytes` bytes at `region` hold a finished table of this layout whose
// offsets all stay inside. `name` is for the message.
inline void validate(const std::byte* region, std::size_t bytes, const std::string& name) {
  const auto require = [&](bool good, const char* message, const char* expected) {
    if (!good) throw ProfileError("shared memory " + name, message, expected);
  };
  require(bytes >= sizeof(layout::Header), "is too small for a header", "a profile table");
  const auto& header = *reinterpret_cast<const layout::Header*>(region);
  require(header.magic.load(std::memory_order_acquire) == layout::kMagic,
          "holds no finished profile table", "the magic FESPROF1");
  require(header.version == layout::kVersion, "has another layout version", "1");
  const layout::Counts& n = header.counts;
  require(n.rungs > 0 && n.clocks > 0 && n.models > 0 && n.rungs <= kCountMax &&
              n.clocks <= kCountMax && n.models <= kCountMax && n.cells <= kCellsMax,
          "has impossible sizes", "a profile table");
  require(header.region_bytes == bytes && layout::offsets(n).end == bytes, "is truncated",
          "a profile table");
  const ProfileView view(region);
  for (int m = 0; m < view.models(); ++m) {
    require(view.model(m).name.back() == '\0', "has a name without an end", "a profile table");
    for (const layout::Grid& g : view.model(m).grids) {
      const bool inside = fits(g.work0) && fits(g.work1) && g.first_cell <= n.cells &&
                          std::uint64_t{g.work0.count} * g.work1.count * n.rungs * n.clocks <=
                              n.cells - g.first_cell;
      require(inside, "has a grid outside its cells", "a profile table");
    }
  }
}

}  // namespace festina::build
