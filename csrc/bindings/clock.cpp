#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <string>
#include <vector>

#include "bindings/module.hpp"
#include "core/clock/cost.hpp"
#include "core/clock/governor.hpp"
#include "core/clock/planner.hpp"
#include "core/clock/recent.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/clock; festina/control/clock.py is the documented surface.
namespace py = pybind11;

namespace festina::clock {
namespace {

using Numbers = py::typing::Dict<py::str, py::object>;
using PlanTuple = py::typing::Tuple<int, double, bool>;

Options options_from(const py::dict& settings) {
  Options o;
  const auto get = [&settings]<class T>(const char* name, T& value) {
    value = settings[name].cast<T>();
  };
  get("below_knee", o.below_knee);
  get("raise_on_demand", o.raise);
  get("hysteresis", o.hysteresis);
  get("margin", o.margin);
  get("utilisation", o.utilisation);
  get("dwell_ms", o.dwell_ms);
  get("memory_ms", o.memory_ms);
  return o;
}

void require(const char* field, int value, int limit) {
  if (value < 0 || value >= limit) {
    throw BadInput(field, "at least 0 and below " + std::to_string(limit));
  }
}
void require_positive(const char* field, double value) {
  if (!(value > 0)) throw BadInput(field, "above 0");
}
void require_not_negative(const char* field, double value) {
  if (!(value >= 0)) throw BadInput(field, "at least 0");
}

Prompt prompt_of(int tokens, int cached, double ttft_ms) {
  require_not_negative("tokens", tokens);
  require_not_negative("cached_tokens", cached);
  if (tokens > 0) require_positive("ttft_ms", ttft_ms);
  return {tokens, cached, ttft_ms};
}

// A load that is being put together.
class Load {
 public:
  void clear() { load.clear(); }
  void add_model(int model, int running, double context_mean, double tbt_ms, double due_ms,
                 bool busy) {
    require_not_negative("running", running);
    if (running > 0) require_positive("tbt_ms", tbt_ms);
    ModelLoad m;
    m.model = model;
    m.running = running;
    m.context_mean = context_mean;
    m.tbt_ms = tbt_ms;
    m.due_ms = due_ms;
    m.busy = busy;
    load.models.push_back(m);
  }
  // Of the model added last.
  void set_prompts(double per_s, double tokens, int hardest_tokens, int hardest_cached,
                   double hardest_ttft_ms) {
    require_not_negative("prompts_per_s", per_s);
    require_not_negative("prompt_tokens", tokens);
    ModelLoad& m = last();
    m.prompts_per_ms = per_s / 1000;
    m.prompt_tokens = tokens;
    m.hardest = prompt_of(hardest_tokens, hardest_cached, hardest_ttft_ms);
  }
  void add_waiting(int number, int tokens, int cached, double since_ms, double objective_ms) {
    require_not_negative("tokens", tokens);
    require_not_negative("cached_tokens", cached);
    require_positive("objective_ms", objective_ms);
    load.waiting.push_back({last().model, number, tokens, cached, since_ms, objective_ms});
  }
  ModelLoad& last() {
    if (load.models.empty()) throw BadInput("models", "one that this belongs to");
    return load.models.back();
  }

  GpuLoad load;
};

// The rule on one kind of device.
class TablePlanner {
 public:
  TablePlanner(const py::object& table, int rung, double switch_ms, const Numbers& settings)
      : table_(table),
        cost_{&table.cast<const ProfileTable&>().view(), rung, switch_ms},
        planner_(options_from(settings)) {
    require("rung", rung, cost_.table->rungs());
    require_not_negative("switch_ms", switch_ms);
  }

  PlanTuple plan(const Load& load, int clock, double now_ms) {
    check(load);
    require("clock", clock, cost_.clocks());
    const Plan p = planner_.plan(cost_, load.load, clock, now_ms);
    return py::make_tuple(p.clock, p.power_w, p.fits);
  }
  bool could_serve(const Load& load, int model, int tokens, int cached, double ttft_ms,
                   double ready_ms, int clock_target) const {
    check(load);
    require("model", model, cost_.table->models());
    return planner_.could_serve(cost_, load.load, model, prompt_of(tokens, cached, ttft_ms),
                                ready_ms, clock_target);
  }

 protected:
  void check(const Load& load) const {
    for (const ModelLoad& m : load.load.models) require("model", m.model, cost_.table->models());
  }

  py::object table_;  // kept alive: the cost reads its memory
  ProfileCost cost_;
  Planner planner_;
};

// The rule on one device that serves.
class TableGovernor : public TablePlanner {
 public:
  TableGovernor(const py::object& table, int rung, double switch_ms, const Numbers& settings)
      : TablePlanner(table, rung, switch_ms, settings),
        recent_(static_cast<std::size_t>(cost_.table->models())) {}

  void arrived(int model, int tokens, int cached, double ttft_ms, double now_ms) {
    require("model", model, cost_.table->models());
    recent_[static_cast<std::size_t>(model)].add(cost_, model, prompt_of(tokens, cached, ttft_ms),
                                                 planner_.options().memory_ms, now_ms);
    governor_.arrived();
  }
  bool due(double now_ms) { return governor_.due(now_ms); }
  // With the prompts that came of late.
  int decide(Load& load, int clock, int target, double now_ms) {
    check(load);
    require("clock", clock, cost_.clocks());
    require("target", target, cost_.clocks());
    for (ModelLoad& m : load.load.models) {
      recent_[static_cast<std::size_t>(m.model)].add_to(m, planner_.options().memory_ms, now_ms);
    }
    return governor_.decide(planner_, cost_, load.load, clock, target, now_ms);
  }

 private:
  std::vector<Recent> recent_;  // by model
  Governor governor_;
};

}  // namespace
}  // namespace festina::clock

namespace festina::bindings {

void register_clock(py::module_& m) {
  using clock::Load;
  using clock::Numbers;
  using clock::TableGovernor;
  using clock::TablePlanner;
  py::class_<Load>(m, "ClockLoad", "What the models of a GPU ask of it.")
      .def(py::init<>())
      .def("clear", &Load::clear)
      .def("add_model", &Load::add_model, py::arg("model"), py::arg("running"),
           py::arg("context_mean"), py::arg("tbt_ms"), py::arg("due_ms"), py::arg("busy"))
      .def("set_prompts", &Load::set_prompts, py::arg("per_s"), py::arg("tokens"),
           py::arg("hardest_tokens"), py::arg("hardest_cached"), py::arg("hardest_ttft_ms"))
      .def("add_waiting", &Load::add_waiting, py::arg("number"), py::arg("tokens"),
           py::arg("cached"), py::arg("since_ms"), py::arg("objective_ms"));
  py::class_<TablePlanner>(m, "ClockPlanner",
                           "The native rule behind festina.control.clock.ClockPlanner.")
      .def(py::init<const py::object&, int, double, const Numbers&>(), py::arg("table"),
           py::arg("rung"), py::arg("switch_ms"), py::arg("settings"))
      .def("plan", &TablePlanner::plan, py::arg("load"), py::arg("clock"), py::arg("now_ms"),
           "Clock, mean power in W, and whether everything would be in time.")
      .def("could_serve", &TablePlanner::could_serve, py::arg("load"), py::arg("model"),
           py::arg("tokens"), py::arg("cached"), py::arg("ttft_ms"), py::arg("ready_ms"),
           py::arg("clock_target"));
  py::class_<TableGovernor, TablePlanner>(m, "ClockGovernor",
                                          "The native rule behind festina.control.clock."
                                          "ClockGovernor.")
      .def(py::init<const py::object&, int, double, const Numbers&>(), py::arg("table"),
           py::arg("rung"), py::arg("switch_ms"), py::arg("settings"))
      .def("arrived", &TableGovernor::arrived, py::arg("model"), py::arg("tokens"),
           py::arg("cached"), py::arg("ttft_ms"), py::arg("now_ms"))
      .def("due", &TableGovernor::due, py::arg("now_ms"))
      .def("decide", &TableGovernor::decide, py::arg("load"), py::arg("clock"), py::arg("target"),
           py::arg("now_ms"));
}

}  // namespace festina::bindings
