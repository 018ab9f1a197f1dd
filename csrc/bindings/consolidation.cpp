#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "core/clock/planner.hpp"
#include "core/consolidation/festina.hpp"
#include "core/consolidation/kinds.hpp"
#include "core/consolidation/paper_live.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/consolidation; festina/control/consolidation.py is the documented
// surface.
namespace py = pybind11;

namespace festina::consolidation {
namespace {

using Settings = py::typing::Dict<py::str, py::object>;
using Tables = py::typing::List<py::object>;
using Models = std::vector<std::pair<std::string, double>>;
using Moves = std::vector<std::pair<int, int>>;

template <class Row>
std::span<const Row> rows_of(const py::array& given, const char* field) {
  if (!py::isinstance<py::array_t<Row>>(given) || given.ndim() != 1 ||
      (given.size() > 1 && given.strides(0) != sizeof(Row))) {
    throw BadInput(field, "contiguous rows of the type that the planner tells");
  }
  return {static_cast<const Row*>(given.data()), static_cast<std::size_t>(given.size())};
}

struct Rules {
  Options festina;
  PaperOptions paper;
  clock::Options clock;
  double byte_j;
  double switch_ms;
};

Rules rules_from(const py::dict& settings) {
  Rules r;
  const auto get = [&settings]<class T>(const char* name, T& value) {
    value = settings[name].cast<T>();
  };
  get("horizon_ms", r.festina.horizon_ms);
  get("least_w", r.festina.least_w);
  get("rare", r.festina.rare);
  get("targets", r.festina.targets);
  get("examined", r.festina.examined);
  get("drains", r.festina.drains);
  get("late_j", r.festina.late_j);
  r.festina.risk = true;
  r.festina.spread = true;
  get("window_ms", r.paper.window_ms);
  get("reserve", r.paper.reserve);
  get("peer_bytes_per_s", r.paper.peer_bytes_per_s);
  get("margin", r.clock.margin);
  get("utilisation", r.clock.utilisation);
  get("memory_ms", r.clock.memory_ms);
  get("byte_j", r.byte_j);
  get("switch_ms", r.switch_ms);
  if (!(r.festina.horizon_ms > 0)) throw BadInput("horizon_ms", "more than 0");
  if (r.festina.targets < 1 || r.festina.examined < 1 || r.festina.drains < 1) {
    throw BadInput("targets", "at least 1, as examined and drains");
  }
  if (!(r.paper.window_ms > 0 && r.paper.reserve >= 0 && r.paper.reserve < 1)) {
    throw BadInput("window_ms", "more than 0, and a reserve of 0 to below 1");
  }
  return r;
}

std::vector<ProfileView> views_of(const Tables& tables) {
  std::vector<ProfileView> views;
  for (const py::handle table : tables) views.push_back(table.cast<const ProfileTable&>().view());
  return views;
}
std::vector<ModelKind> kinds_of(const Models& models) {
  std::vector<ModelKind> kinds;
  for (const auto& [profile, kv_tokens] : models) kinds.push_back({profile, kv_tokens});
  return kinds;
}

class Planner {
 public:
  Planner(const Tables& tables, const Models& models, const Settings& settings)
      : tables_(tables),
        rules_(rules_from(settings)),
        kinds_(views_of(tables), kinds_of(models), rules_.byte_j, rules_.switch_ms),
        clock_(rules_.clock),
        festina_(rules_.festina, clock_) {}

  std::vector<Drain> drains(const py::array& gpus, const py::array& residents,
                            double growth_per_ms) {
    kinds_.look_at(rows_of<GpuRow>(gpus, "gpus"));
    const auto states = kinds_.states(rows_of<ResidentRow>(residents, "residents"));
    return festina_.drains(kinds_, states, 0.0, growth_per_ms);
  }

  // (woken, overloaded), or nothing.
  std::optional<std::pair<int, int>> wake(const py::array& gpus, const py::array& residents) {
    kinds_.look_at(rows_of<GpuRow>(gpus, "gpus"));
    const auto states = kinds_.states(rows_of<ResidentRow>(residents, "residents"));
    const std::optional<Wake> found = festina_.wake_ahead(kinds_, states, 0.0);
    if (!found) return std::nullopt;
    return std::pair(found->gpu, found->overloaded);
  }

  // (moves of models, GPUs that are left empty), or nothing.
  std::optional<std::pair<Moves, std::vector<int>>> paper(const py::array& gpus,
                                                          const py::array& residents,
                                                          const py::array& demands,
                                                          const std::vector<int>& active,
                                                          double memory_bytes) {
    const auto rows = rows_of<GpuRow>(gpus, "gpus");
    const auto asked = rows_of<DemandRow>(demands, "demands");
    if (asked.size() != static_cast<std::size_t>(kinds_.models())) {
      throw BadInput("demands", "one row for each deployment");
    }
    for (const int gpu : active) {
      const bool known = gpu >= 0 && static_cast<std::size_t>(gpu) < rows.size();
      if (!known) throw BadInput("active", "numbers of GPUs");
    }
    kinds_.look_at(rows);
    const auto states = kinds_.states(rows_of<ResidentRow>(residents, "residents"));
    const auto plan = PaperRule(kinds_, rules_.paper, states, asked).plan(active, memory_bytes);
    if (!plan) return std::nullopt;
    Moves moves;
    for (const Move& m : plan->moves) moves.emplace_back(m.model, m.to);
    return std::pair(std::move(moves), plan->drained);
  }

 private:
  py::object tables_;  // kept alive: the kinds read their memory
  Rules rules_;
  Kinds kinds_;
  clock::Planner clock_;
  Festina<Kinds> festina_;
};

}  // namespace
}  // namespace festina::consolidation

namespace festina::bindings {

void register_consolidation(py::module_& m) {
  using consolidation::DemandRow;
  using consolidation::Drain;
  using consolidation::GpuRow;
  using consolidation::Planner;
  using consolidation::ResidentRow;
  PYBIND11_NUMPY_DTYPE(GpuRow, kind, sms_total, clock_mhz, clock_least_mhz, clock_most_mhz,
                       requests, free_bytes, awake, open, parked, settled, loading);
  PYBIND11_NUMPY_DTYPE(ResidentRow, gpu, model, running, hardest_tokens, context_mean, tbt_ms,
                       prompts_per_ms, prompt_tokens, ttft_ms, idle);
  PYBIND11_NUMPY_DTYPE(DemandRow, per_ms, input_tokens, output_tokens, ttft_ms, tbt_ms);
  py::class_<Drain>(m, "Drain", "A GPU to be emptied and parked, and why.")
      .def_readonly("gpu", &Drain::gpu)
      .def_readonly("saved_w", &Drain::saved_w)
      .def_readonly("valley_ms", &Drain::valley_ms)
      .def_readonly("wake_j", &Drain::wake_j)
      .def_readonly("moves_j", &Drain::moves_j)
      .def_readonly("risk_j", &Drain::risk_j)
      .def_readonly("gain_j", &Drain::gain_j)
      .def_property_readonly("moves", [](const Drain& d) {
        consolidation::Moves moves;
        for (const consolidation::Move& move : d.moves) moves.emplace_back(move.model, move.to);
        return moves;
      });
  py::class_<Planner>(m, "ConsolidationPlanner",
                      "The native rules behind festina.control.consolidation.")
      .def(py::init<const consolidation::Tables&, const consolidation::Models&,
                    const consolidation::Settings&>(),
           py::arg("tables"), py::arg("models"), py::arg("settings"))
      .def("drains", &Planner::drains, py::arg("gpus"), py::arg("residents"),
           py::arg("growth_per_ms"))
      .def("wake", &Planner::wake, py::arg("gpus"), py::arg("residents"))
      .def("paper", &Planner::paper, py::arg("gpus"), py::arg("residents"), py::arg("demands"),
           py::arg("active"), py::arg("memory_bytes"))
      .def_property_readonly_static(
          "gpu_dtype", [](const py::object&) -> py::dtype { return py::dtype::of<GpuRow>(); })
      .def_property_readonly_static(
          "resident_dtype",
          [](const py::object&) -> py::dtype { return py::dtype::of<ResidentRow>(); })
      .def_property_readonly_static("demand_dtype", [](const py::object&) -> py::dtype {
        return py::dtype::of<DemandRow>();
      });
}

}  // namespace festina::bindings
