#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/module.hpp"
#include "core/bad_input.hpp"
#include "core/packing/transport.hpp"

// Python's side of csrc/core/packing/transport.hpp; festina/control/migration.py is the documented
// surface.
namespace py = pybind11;

namespace festina::bindings {
namespace {

using Matrix = py::array_t<double, py::array::c_style | py::array::forcecast>;

std::vector<int> assign(const Matrix& costs, const std::vector<int>& room) {
  if (costs.ndim() != 2) throw BadInput("costs", "two dimensions");
  const auto rows = static_cast<std::size_t>(costs.shape(0));
  const auto columns = static_cast<std::size_t>(costs.shape(1));
  if (columns != room.size()) throw BadInput("room", "one for each column");
  std::size_t places = 0;
  for (const int places_there : room) {
    if (places_there < 0) throw BadInput("room", "at least 0");
    places += static_cast<std::size_t>(places_there);
  }
  if (places < rows) throw BadInput("room", "a place for each row");
  const double* cell = costs.data();
  packing::Costs copy(rows, std::vector<double>(columns));
  for (auto& row : copy) {
    for (double& cost : row) {
      cost = *cell++;
      if (!std::isfinite(cost)) throw BadInput("costs", "finite numbers");
    }
  }
  const py::gil_scoped_release release;
  return packing::transport(copy, room);
}

}  // namespace

void register_assignment(py::module_& m) {
  m.def("assign", &assign, py::arg("costs"), py::arg("room"),
        "The column of each row so that the costs add up to the least and no column gets more rows "
        "than it has room for.");
}

}  // namespace festina::bindings
