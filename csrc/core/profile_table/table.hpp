#pragma once
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/profile_table/build.hpp"
#include "core/profile_table/cell.hpp"
#include "core/profile_table/correction.hpp"
#include "core/profile_table/error.hpp"
#include "core/profile_table/layout.hpp"
#include "core/profile_table/region.hpp"
#include "core/profile_table/ring.hpp"
#include "core/profile_table/view.hpp"

namespace festina {

// A step as it was measured.
struct Measurement {
  int model;
  Phase phase;
  int rung;
  int clock;
  float work0;
  float work1;
  double latency_ms;              // > 0
  std::optional<double> power_w;  // dynamic; absent where nothing measured it
};

// A profile table: owns its region, and is the only one that writes to it.
//
// Any number of threads and processes may read through `view()` copies meanwhile; calls that write
// (`correct`) come from one thread at a time. A table from `attach` is read-only.
class ProfileTable {
 public:
  // In memory of this process. Throws ProfileError if `spec` is inconsistent.
  explicit ProfileTable(const TableSpec& spec)
      : ProfileTable(built(spec, Region::anonymous(build::region_bytes(spec)))) {}

  // A copy of this table, as it is now, in shared memory under `name`; the copy is its writer.
  // Throws ProfileError if a living writer has that name.
  ProfileTable publish(const std::string& name) const {
    Region region = Region::create(name, region_.bytes());
    build::copy(view_, region.data());
    return ProfileTable(std::move(region));
  }

  // The table that another process publishes, for reading. Throws ProfileError.
  static ProfileTable attach(const std::string& name) {
    Region region = Region::attach(name);
    build::validate(region.data(), region.bytes(), name);
    return ProfileTable(std::move(region));
  }

  // The table that a writer left behind when it died, corrections included, to go on writing.
  // Throws ProfileError.
  static ProfileTable take_over(const std::string& name) {
    Region region = Region::take_over(name);
    build::validate(region.data(), region.bytes(), name);
    ProfileTable table(std::move(region));
    for (std::size_t i = 0; i < table.view_.cells(); ++i) table.mirror(i, table.view_.cell(i));
    table.header().epoch.fetch_add(1, std::memory_order_release);
    return table;
  }

  const ProfileView& view() const noexcept { return view_; }
  bool writable() const noexcept { return region_.writable(); }

  // Takes the shared name away; readers keep what they have mapped.
  void unlink() noexcept { region_.unlink(); }

  // Heals the cells that `measured` was predicted from: the four corners of its work at its point,
  // and, at half the gain, those at other SMs and clocks that were never measured themselves.
  // Throws ProfileError if the table is read-only or a figure is out of range.
  void correct(const Measurement& measured) {
    check(measured);
    const WorkPoint w =
        view_.locate(measured.model, measured.phase, measured.work0, measured.work1);
    const Cost predicted = view_.cost(w, measured.rung, measured.clock);
    const double latency = correction::surprise(measured.latency_ms, predicted.latency_ms);
    const double power = measured.power_w && predicted.power_w > 0
                             ? correction::surprise(*measured.power_w, predicted.power_w)
                             : 0.0;
    const float largest = *std::max_element(w.weights.begin(), w.weights.end());
    const std::array<std::uint32_t, 4> corners{w.cell, w.cell + w.step1, w.cell + w.step0,
                                               w.cell + w.step0 + w.step1};
    const std::uint32_t here = view_.point(measured.rung, measured.clock);
    for (std::size_t corner = 0; corner < corners.size(); ++corner) {
      if (w.weights[corner] <= 0) continue;
      const double share = w.weights[corner] / largest;
      for (std::uint32_t point = 0; point < view_.points(); ++point) {
        heal(corners[corner] + point, latency, power, share, point == here);
      }
    }
    header().updates.fetch_add(1, std::memory_order_release);
  }

  // Replaces a cell as a whole.
  void write(std::size_t index, const Cell& cell) noexcept {
    layout::Header& h = header();
    const auto at = layout::offsets(h.counts);
    auto* heads = reinterpret_cast<ring::Head*>(region_.data() + at.heads);
    auto* slots = reinterpret_cast<ring::Slot*>(region_.data() + at.cells);
    ring::write(heads[index], slots + index, h.counts.cells, cell);
    mirror(index, cell);
  }

 private:
  explicit ProfileTable(Region region) : region_(std::move(region)), view_(region_.data()) {}

  static Region built(const TableSpec& spec, Region region) {
    build::fill(spec, region.data());
    return region;
  }

  layout::Header& header() noexcept { return *reinterpret_cast<layout::Header*>(region_.data()); }

  void heal(std::size_t index, double latency, double power, double share, bool here) noexcept {
    Cell cell = view_.cell(index);
    if (!here && cell.observations > 0) return;
    correction::apply(cell, latency, power, here ? share : share * correction::kNeighbourGain);
    if (here) {
      ++cell.observations;
      ++cell.samples;
    }
    write(index, cell);
  }

  // The words that sweeps read, derived from the record.
  void mirror(std::size_t index, const Cell& cell) noexcept {
    build::mirror(region_.data(), header().counts, index, cell);
  }

  void check(const Measurement& m) const {
    if (!writable()) throw ProfileError("table", "is attached for reading only");
    const auto within = [](const char* field, int value, int count) {
      if (value < 0 || value >= count) {
        throw ProfileError(field, std::to_string(value) + " is not in the table",
                           "0 to " + std::to_string(count - 1));
      }
    };
    within("model", m.model, view_.models());
    within("phase", static_cast<int>(m.phase), static_cast<int>(kPhases));
    within("rung", m.rung, view_.rungs());
    within("clock", m.clock, view_.clocks());
    const auto positive = [](const char* field, double value) {
      if (!(value > 0) || !std::isfinite(value)) {
        throw ProfileError(field, std::to_string(value) + " is out of range", "a positive number");
      }
    };
    positive("latency_ms", m.latency_ms);
    if (m.power_w) positive("power_w", *m.power_w);
  }

  Region region_;
  ProfileView view_;
};

}  // namespace festina
