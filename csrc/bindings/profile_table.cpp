#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cstring>

#include "bindings/module.hpp"
#include "core/profile_table/batch.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/profile_table. Everything here works on arrays: crossing into C++
// costs more than a lookup does. Indices are checked here, where they enter.
namespace py = pybind11;

namespace festina {
namespace {

template <class T>
using Keys = py::array_t<T, py::array::c_style | py::array::forcecast>;

using Described = py::typing::Dict<py::str, py::object>;
using Knots = py::typing::Tuple<py::typing::List<float>, py::typing::List<float>>;

// A column of keys: one value per key, or one value for all.
template <class T>
class Column {
 public:
  Column(const char* field, const Keys<T>& keys)
      : field_(field), data_(keys.data()), size_(keys.size()), step_(keys.size() == 1 ? 0 : 1) {}

  py::ssize_t size() const { return size_; }
  T operator[](py::ssize_t i) const { return data_[i * step_]; }
  // The values from `first` on. `repeated` takes the one value for all: `count` times.
  const T* from(py::ssize_t first, std::size_t count, batch::PerStep<T>& repeated) const {
    if (step_ == 1) return data_ + first;
    std::fill_n(repeated.begin(), count, data_[0]);
    return repeated.data();
  }

  void require_size(py::ssize_t size) const {
    if (size_ != 1 && size_ != size) {
      throw ProfileError(field_, "has " + std::to_string(size_) + " values",
                         "1 or " + std::to_string(size));
    }
  }
  // All values are at least 0 and below `limit`.
  void require_below(T limit) const {
    T lowest = 0;
    T highest = 0;
    for (py::ssize_t i = 0; i < size_; ++i) {
      lowest = std::min(lowest, data_[i]);
      highest = std::max(highest, data_[i]);
    }
    if (lowest < 0 || highest >= limit) {
      throw ProfileError(field_,
                         std::to_string(lowest < 0 ? lowest : highest) + " is not in the table",
                         "0 to " + std::to_string(limit - 1));
    }
  }

 private:
  const char* field_;
  const T* data_;
  py::ssize_t size_;
  py::ssize_t step_;
};

py::array estimate(const ProfileTable& table, const Keys<std::int32_t>& model,
                   const Keys<std::int32_t>& phase, const Keys<std::int32_t>& rung,
                   const Keys<std::int32_t>& clock, const Keys<float>& work0,
                   const Keys<float>& work1) {
  const ProfileView& view = table.view();
  const Column models("model", model), phases("phase", phase), rungs("rung", rung),
      clocks("clock", clock);
  const Column works0("work0", work0), works1("work1", work1);
  const py::ssize_t size = std::max(
      {models.size(), phases.size(), rungs.size(), clocks.size(), works0.size(), works1.size()});
  for (const auto* column : {&models, &phases, &rungs, &clocks}) column->require_size(size);
  for (const auto* column : {&works0, &works1}) column->require_size(size);
  models.require_below(view.models());
  phases.require_below(static_cast<int>(kPhases));
  rungs.require_below(view.rungs());
  clocks.require_below(view.clocks());
  py::array_t<Estimate> out(size);
  Estimate* estimates = out.mutable_data();
  for (py::ssize_t i = 0; i < size; ++i) {
    estimates[i] = view.estimate(models[i], static_cast<Phase>(phases[i]), rungs[i], clocks[i],
                                 works0[i], works1[i]);
  }
  return out;
}

void require(const char* field, int value, int limit) {
  if (value < 0 || value >= limit) {
    throw ProfileError(field, std::to_string(value) + " is not in the table",
                       "0 to " + std::to_string(limit - 1));
  }
}

// Steps of one model and phase, as most callers have them. Takes Python integers only: making an
// array of one costs as much as a hundred estimates.
py::array estimate_one_grid(const ProfileTable& table, const py::int_& model, const py::int_& phase,
                            const Keys<std::int32_t>& rung, const Keys<std::int32_t>& clock,
                            const Keys<float>& work0, const Keys<float>& work1) {
  const ProfileView& view = table.view();
  const int index = model.cast<int>(), step = phase.cast<int>();
  require("model", index, view.models());
  require("phase", step, static_cast<int>(kPhases));
  const Column rungs("rung", rung), clocks("clock", clock);
  const Column works0("work0", work0), works1("work1", work1);
  const py::ssize_t size = std::max({rungs.size(), clocks.size(), works0.size(), works1.size()});
  for (const auto* column : {&rungs, &clocks}) column->require_size(size);
  for (const auto* column : {&works0, &works1}) column->require_size(size);
  rungs.require_below(view.rungs());
  clocks.require_below(view.clocks());
  py::array_t<Estimate> out(size);
  Estimate* estimates = out.mutable_data();
  batch::PerStep<std::int32_t> one_rung, one_clock;
  batch::PerStep<float> one_work0, one_work1;
  for (py::ssize_t i = 0; i < size; i += batch::kSteps) {
    const std::size_t count = std::min(batch::kSteps, static_cast<std::size_t>(size - i));
    batch::estimate(view, index, static_cast<Phase>(step),
                    {count, rungs.from(i, count, one_rung), clocks.from(i, count, one_clock),
                     works0.from(i, count, one_work0), works1.from(i, count, one_work1)},
                    estimates + i);
  }
  return out;
}

py::array_t<Cell> empty_cells(std::vector<py::ssize_t> shape) { return py::array_t<Cell>(shape); }

// numpy does not align to cache lines, so cells go in and out as bytes.
// Costs of cells by number. One pass: numbers are checked as they are used.
py::array lookup(const ProfileTable& table, const Keys<std::int64_t>& cell) {
  const ProfileView& view = table.view();
  const auto limit = static_cast<std::uint64_t>(view.cells());
  const std::int64_t* numbers = cell.data();
  py::array_t<Cost> out(cell.size());
  Cost* costs = out.mutable_data();
  for (py::ssize_t i = 0; i < cell.size(); ++i) {
    const auto number = static_cast<std::uint64_t>(numbers[i]);  // negative: beyond any limit
    if (number >= limit) {
      throw ProfileError("cell", std::to_string(numbers[i]) + " is not in the table",
                         "0 to " + std::to_string(limit - 1));
    }
    costs[i] = view.cost(number);
  }
  return out;
}

const layout::Grid& grid(const ProfileTable& table, int model, int phase) {
  require("model", model, table.view().models());
  require("phase", phase, static_cast<int>(kPhases));
  return table.view().grid(model, static_cast<Phase>(phase));
}

std::vector<py::ssize_t> grid_shape(const ProfileView& view, const layout::Grid& g) {
  return {g.work0.count, g.work1.count, view.rungs(), view.clocks()};
}

py::array cells(const ProfileTable& table, int model, int phase) {
  const layout::Grid& g = grid(table, model, phase);
  py::array_t<Cell> out = empty_cells(grid_shape(table.view(), g));
  auto* bytes = static_cast<std::byte*>(out.request().ptr);
  for (std::size_t i = 0; i < static_cast<std::size_t>(out.size()); ++i) {
    const Cell cell = table.view().cell(g.first_cell + i);
    std::memcpy(bytes + i * sizeof(Cell), &cell, sizeof(Cell));
  }
  return out;
}

// No copy: the words that the native sweeps read, which change under the array as the writer works.
py::array costs(const py::object& self, int model, int phase) {
  const auto& table = self.cast<const ProfileTable&>();
  const layout::Grid& g = grid(table, model, phase);
  py::array_t<Cost> out(grid_shape(table.view(), g),
                        reinterpret_cast<const Cost*>(table.view().costs() + g.first_cell), self);
  py::detail::array_proxy(out.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return out;
}

Knots knots(const ProfileTable& table, int model, int phase) {
  const layout::Grid& g = grid(table, model, phase);
  const auto list = [&](const layout::Axis& axis) {
    const auto values = table.view().knots(axis);
    return std::vector<float>(values.begin(), values.end());
  };
  return py::make_tuple(list(g.work0), list(g.work1));
}

int least_rung(const ProfileTable& table, int model, int phase, int clock, float work0, float work1,
               float deadline_ms) {
  grid(table, model, phase);
  require("clock", clock, table.view().clocks());
  return table.view().least_rung(model, static_cast<Phase>(phase), clock, work0, work1,
                                 deadline_ms);
}

py::typing::Tuple<int, int, float, float> cheapest(const ProfileTable& table, int model, int phase,
                                                   float work0, float work1, float deadline_ms,
                                                   float idle_share) {
  grid(table, model, phase);
  const Choice choice = table.view().cheapest(model, static_cast<Phase>(phase), work0, work1,
                                              deadline_ms, idle_share);
  return py::make_tuple(choice.rung, choice.clock, choice.energy_mj, choice.latency_ms);
}

void correct(ProfileTable& table, int model, int phase, int rung, int clock, float work0,
             float work1, double latency_ms, std::optional<double> power_w) {
  table.correct({model, static_cast<Phase>(phase), rung, clock, work0, work1, latency_ms, power_w});
}

void set_cells(TableSpec& spec, const py::array& cells) {
  if (!cells.dtype().equal(py::dtype::of<Cell>()) || !(cells.flags() & py::array::c_style)) {
    throw ProfileError("cells", "are of another type", "contiguous CELL records");
  }
  spec.cells.resize(static_cast<std::size_t>(cells.size()));
  std::memcpy(spec.cells.data(), cells.data(), spec.cells.size() * sizeof(Cell));
}

Described describe(const ProfileTable& table) {
  const layout::Header& h = table.view().header();
  Described device;
  device["device"] = h.device.data();
  device["sms_total"] = h.sms_total;
  device["memory_bytes"] = h.memory_bytes;
  device["parked_w"] = h.parked_w;
  device["power_cap_w"] = h.power_cap_w;
  return device;
}

Described describe_model(const ProfileTable& table, int index) {
  require("model", index, table.view().models());
  const layout::Model& m = table.view().model(index);
  Described model;
  model["name"] = m.name.data();
  model["weight_bytes"] = m.weight_bytes;
  model["kv_bytes_per_token"] = m.kv_bytes_per_token;
  model["context_tokens"] = m.context_tokens;
  model["load_ms"] = m.load_ms;
  model["wake_ms"] = m.wake_ms;
  return model;
}

template <class T>
py::array_t<T> array(std::span<const T> values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const ProfileError& error) {
    const py::object type = py::module_::import("festina.errors").attr("ProfileError");
    const py::object value =
        type(error.what(), py::arg("field") = error.field, py::arg("expected") = error.expected);
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

void register_specs(py::module_& m) {
  py::class_<ModelSpec>(m, "ModelSpec", "One model of a table that is being made.")
      .def(py::init<>())
      .def_readwrite("name", &ModelSpec::name)
      .def_readwrite("weight_bytes", &ModelSpec::weight_bytes)
      .def_readwrite("kv_bytes_per_token", &ModelSpec::kv_bytes_per_token)
      .def_readwrite("context_tokens", &ModelSpec::context_tokens)
      .def_readwrite("load_ms", &ModelSpec::load_ms)
      .def_readwrite("wake_ms", &ModelSpec::wake_ms)
      .def_readwrite("work0", &ModelSpec::work0, "Knots per phase.")
      .def_readwrite("work1", &ModelSpec::work1, "Knots per phase.");
  py::class_<TableSpec>(m, "TableSpec", "What a profile table is made from.")
      .def(py::init<>())
      .def_readwrite("device", &TableSpec::device)
      .def_readwrite("sms_total", &TableSpec::sms_total)
      .def_readwrite("memory_bytes", &TableSpec::memory_bytes)
      .def_readwrite("parked_w", &TableSpec::parked_w)
      .def_readwrite("power_cap_w", &TableSpec::power_cap_w)
      .def_readwrite("sms", &TableSpec::sms)
      .def_readwrite("clocks_mhz", &TableSpec::clocks_mhz)
      .def_readwrite("idle_w", &TableSpec::idle_w)
      .def_readwrite("models", &TableSpec::models)
      .def("set_cells", &set_cells, py::arg("cells"),
           "Cells of all models in order, prefill then decode, each [work0][work1][rung][clock].");
}

void register_table(py::module_& m) {
  py::class_<ProfileTable>(m, "ProfileTable",
                           "The native table behind festina.control.profile.ProfileTable.")
      .def(py::init<const TableSpec&>(), py::arg("spec"))
      .def_static("attach", &ProfileTable::attach, py::arg("name"))
      .def_static("take_over", &ProfileTable::take_over, py::arg("name"))
      .def("publish", &ProfileTable::publish, py::arg("name"))
      .def("unlink", &ProfileTable::unlink)
      .def_property_readonly("writable", &ProfileTable::writable)
      .def_property_readonly("epoch",
                             [](const ProfileTable& t) { return t.view().header().epoch.load(); })
      .def_property_readonly("updates", [](const ProfileTable& t) { return t.view().updates(); })
      .def_property_readonly("models", [](const ProfileTable& t) { return t.view().models(); })
      .def_property_readonly("sms", [](const ProfileTable& t) { return array(t.view().sms()); })
      .def_property_readonly("clocks_mhz",
                             [](const ProfileTable& t) { return array(t.view().clocks_mhz()); })
      .def_property_readonly("idle_w",
                             [](const ProfileTable& t) { return array(t.view().idle_w()); })
      .def("describe", &describe)
      .def("describe_model", &describe_model, py::arg("model"))
      .def("knots", &knots, py::arg("model"), py::arg("phase"))
      .def("estimate", &estimate_one_grid, py::arg("model"), py::arg("phase"), py::arg("rung"),
           py::arg("clock"), py::arg("work0"), py::arg("work1"))
      .def("estimate", &estimate, py::arg("model"), py::arg("phase"), py::arg("rung"),
           py::arg("clock"), py::arg("work0"), py::arg("work1"))
      .def("lookup", &lookup, py::arg("cell"))
      .def(
          "first_cell",
          [](const ProfileTable& t, int model, int phase) {
            return grid(t, model, phase).first_cell;
          },
          py::arg("model"), py::arg("phase"))
      .def("cells", &cells, py::arg("model"), py::arg("phase"))
      .def("costs", &costs, py::arg("model"), py::arg("phase"))
      .def("least_rung", &least_rung, py::arg("model"), py::arg("phase"), py::arg("clock"),
           py::arg("work0"), py::arg("work1"), py::arg("deadline_ms"))
      .def("cheapest", &cheapest, py::arg("model"), py::arg("phase"), py::arg("work0"),
           py::arg("work1"), py::arg("deadline_ms"), py::arg("idle_share"))
      .def("correct", &correct, py::arg("model"), py::arg("phase"), py::arg("rung"),
           py::arg("clock"), py::arg("work0"), py::arg("work1"), py::arg("latency_ms"),
           py::arg("power_w"));
}

}  // namespace
}  // namespace festina

namespace festina::bindings {

void register_profile_table(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(Cell, latency_ms, power_w, flops_per_s, bytes_per_s, spread, latency_factor,
                       power_factor, samples, source, observations, version);
  PYBIND11_NUMPY_DTYPE(Cost, latency_ms, power_w);
  PYBIND11_NUMPY_DTYPE(Estimate, latency_ms, power_w, spread, bytes_per_s);
  py::register_exception_translator(&translate);
  register_specs(m);
  register_table(m);
}

}  // namespace festina::bindings
