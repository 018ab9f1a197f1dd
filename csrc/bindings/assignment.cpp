#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/module.hpp"
#include "core/bad_input.hpp"
#include "core/packing/assignment.hpp"

// Python's side of csrc/core/packing/assignment.hpp; festina/control/migration.py is the documented
// surface.
namespace py = pybind11;

namespace festina::bindings {
namespace {

using Matrix = py::array_t<double, py::array::c_style | py::array::forcecast>;

std::vector<int> assign(const Matrix& costs) {
  if (costs.ndim() != 2) throw BadInput("costs", "two dimensions");
  const auto rows = static_cast<std::size_t>(costs.shape(0));
  const auto columns = static_cast<std::size_t>(costs.shape(1));
  if (columns < rows) throw BadInput("costs", "at least as many columns as rows");
  const double* cell = costs.data();
  packing::Costs copy(rows, std::vector<double>(columns));
  for (auto& row : copy) {
    for (double& cost : row) {
      cost = *cell++;
      if (!std::isfinite(cost)) throw BadInput("costs", "finite numbers");
    }
  }
  const py::gil_scoped_release release;
  return packing::assign(copy);
}

}  // namespace

void register_assignment(py::module_& m) {
  m.def("assign", &assign, py::arg("costs"),
        "The column of each row, all different, so that the costs add up to the least.");
}

}  // namespace festina::bindings
