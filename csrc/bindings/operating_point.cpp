#include <pybind11/numpy.h>
#include <pybind11/typing.h>

#include <string>

#include "bindings/module.hpp"
#include "core/operating_point/solver.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/operating_point; festina/control/operating_point.py is the documented
// surface.
namespace py = pybind11;

namespace festina::operating_point {
namespace {

Options options_from(const py::dict& settings) {
  Options o;
  const auto get = [&settings]<class T>(const char* name, T& value) {
    value = settings[name].cast<T>();
  };
  const auto policy = settings["policy"].cast<std::string>();
  if (policy != "festina" && policy != "paper") throw BadInput("policy", "festina or paper");
  o.policy = policy == "paper" ? Policy::paper : Policy::festina;
  get("margin", o.margin);
  get("beta", o.beta);
  get("clocks_settable", o.clocks_settable);
  get("one_idle_power", o.one_idle_power);
  get("bandwidth_bytes_per_s", o.bandwidth_bytes_per_s);
  get("knee_mhz", o.knee_mhz);
  get("switch_cost_j", o.switch_cost_j);
  get("dwell_ms", o.dwell_ms);
  return o;
}

using Settings = py::typing::Dict<py::str, py::object>;

// A plan that owns its arrays.
struct Answer {
  int clock_mhz;
  bool on_time;
  float energy_j;
  float power_w;
  float span_ms;
  py::array_t<std::int32_t> rung;
  py::array_t<float> latency_ms;
};

class TableSolver {
 public:
  TableSolver(const py::object& table, const Settings& settings)
      : table_(table),
        profile_(table.cast<const ProfileTable&>().view()),
        solver_(profile_, options_from(settings)) {}

  Answer solve(const py::array& given, int clock_mhz, int sms, double memory_free_bytes,
               float since_switch_ms, float power_budget_w) {
    const py::array tasks = rows(given);
    const std::span<const Task> span(static_cast<const Task*>(tasks.data()),
                                     static_cast<std::size_t>(tasks.size()));
    const Plan& plan =
        solver_.solve(span, {clock_mhz, sms, memory_free_bytes, since_switch_ms, power_budget_w});
    return {profile_.clock_mhz(plan.clock),
            plan.on_time,
            plan.energy_j,
            plan.power_w,
            plan.span_ms,
            py::array_t<std::int32_t>(tasks.size(), plan.rung.data()),
            py::array_t<float>(tasks.size(), plan.latency_ms.data())};
  }

 private:
  // `given` as contiguous tasks. Comparing structured types field by field costs as much as solving
  // for ten tasks; arrays mostly share the type object of the array before.
  py::array rows(const py::array& given) {
    const py::dtype type = given.dtype();
    if (!type.is(task_type_)) {
      if (!py::isinstance<py::array_t<Task>>(given)) throw BadInput("tasks", "dtype TASK");
      task_type_ = type;
    }
    if (given.ndim() != 1) throw BadInput("tasks", "one dimension of dtype TASK");
    const bool packed = given.strides(0) == sizeof(Task) || given.size() < 2;
    return packed ? given : py::array_t<Task, py::array::c_style>::ensure(given);
  }

  py::object task_type_;
  py::object table_;  // kept alive: the solver reads its memory
  ProfileView profile_;
  Solver solver_;
};

}  // namespace
}  // namespace festina::operating_point

namespace festina::bindings {

void register_operating_point(py::module_& m) {
  using operating_point::Answer;
  using operating_point::TableSolver;
  using operating_point::Task;
  PYBIND11_NUMPY_DTYPE(Task, model, phase, work0, work1, deadline_ms, age_ms, memory_bytes);
  py::class_<Answer>(m, "Plan", "What runs next on one GPU, on how many SMs and at which clock.")
      .def_readonly("clock_mhz", &Answer::clock_mhz)
      .def_readonly("on_time", &Answer::on_time)
      .def_readonly("energy_j", &Answer::energy_j)
      .def_readonly("power_w", &Answer::power_w)
      .def_readonly("span_ms", &Answer::span_ms)
      .def_readonly("rung", &Answer::rung)
      .def_readonly("latency_ms", &Answer::latency_ms);
  py::class_<TableSolver>(m, "OperatingPointSolver",
                          "The native solver behind festina.control.operating_point.Solver.")
      .def(py::init<const py::object&, const operating_point::Settings&>(), py::arg("table"),
           py::arg("settings"))
      .def("solve", &TableSolver::solve, py::arg("tasks"), py::arg("clock_mhz"), py::arg("sms"),
           py::arg("memory_free_bytes"), py::arg("since_switch_ms"), py::arg("power_budget_w"));
}

}  // namespace festina::bindings
