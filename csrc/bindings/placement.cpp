#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "core/placement/cluster_view.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/placement; festina/control/placement.py is the documented surface.
namespace py = pybind11;

namespace festina::placement {
namespace {

const char* error_name(Reason reason) {
  switch (reason) {
    case Reason::bad_request:
      return "BadRequestError";
    case Reason::unknown_model:
      return "UnknownModelError";
    case Reason::context_limit:
      return "ContextLimitError";
    case Reason::infeasible:
      return "InfeasibleError";
    case Reason::overloaded:
      return "OverloadedError";
  }
  return "FestinaError";
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const Refusal& r) {
    const py::object type = py::module_::import("festina.errors").attr(error_name(r.reason()));
    const py::object value =
        type(r.what(), py::arg("field") = r.field(), py::arg("expected") = r.expected(),
             py::arg("retry_after_ms") = r.retry_after_ms());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

Options options_from(const py::dict& settings) {
  Options o;
  const auto get = [&settings]<class T>(const char* name, T& value) {
    value = settings[name].cast<T>();
  };
  const auto policy = settings["policy"].cast<std::string>();
  if (policy != "festina" && policy != "paper") {
    throw Refusal(Reason::bad_request, "is unknown", "policy", "festina or paper");
  }
  o.policy = policy == "paper" ? Policy::paper : Policy::festina;
  get("margin", o.margin);
  get("queue_max", o.queue_max);
  get("retry_after_ms", o.retry_after_ms);
  o.reservation_ms = settings["reservation_s"].cast<double>() * 1000;
  o.wake_stay_ms = settings["wake_stay_s"].cast<double>() * 1000;
  get("marginal_energy", o.marginal_energy);
  get("batch_aware", o.batch_aware);
  get("interference", o.interference);
  get("raise_clock", o.raise_clock);
  get("charge_raise", o.charge_raise);
  get("spread_margin", o.spread_margin);
  return o;
}

using Settings = py::typing::Dict<py::str, py::object>;
using Tables = py::typing::List<py::typing::Tuple<py::str, ProfileTable>>;

// The view with the names of its deployments, and the tables that it reads.
class NamedView {
 public:
  NamedView(const Tables& tables, const Settings& settings)
      : tables_(tables), view_(views(tables), options_from(settings)) {}

  int add_model(const std::string& name, const std::string& profile_model, float ttft_ms,
                float tbt_ms, int context_tokens) {
    if (models_.contains(name)) {
      throw Refusal(Reason::bad_request, "is there already", "name", "a new name");
    }
    const int model = view_.add_model(name, profile_model, {ttft_ms, tbt_ms}, context_tokens);
    models_.emplace(name, model);
    return model;
  }

  // `summary` is a festina.types.GpuSummary.
  void update(int slot, const py::object& summary) {
    Summary s;
    const auto get = [&summary]<class T>(const char* name, T& value) {
      value = summary.attr(name).cast<T>();
    };
    get("clock_mhz", s.clock_mhz);
    get("clock_target_mhz", s.clock_target_mhz);
    get("sms_free", s.sms_free);
    get("free_in_ms", s.free_in_ms);
    get("kv_tokens_total", s.kv_tokens_total);
    get("kv_tokens_free", s.kv_tokens_free);
    get("memory_free_bytes", s.memory_free_bytes);
    get("parked", s.parked);
    get("tickets", s.tickets);
    for (const py::handle model : summary.attr("models")) s.residents.push_back(resident(model));
    view_.update(slot, std::move(s));
  }

  Placement place(int model, int input_tokens, int max_tokens, float ttft_ms, float tbt_ms,
                  const std::vector<int>& exclude) {
    return view_.place({model, input_tokens, max_tokens, {ttft_ms, tbt_ms}}, exclude);
  }

  ClusterView& view() { return view_; }

 private:
  static std::vector<std::pair<std::string, ProfileView>> views(const py::list& tables) {
    std::vector<std::pair<std::string, ProfileView>> found;
    for (const py::handle item : tables) {
      const auto [kind, table] = item.cast<std::pair<std::string, py::object>>();
      found.emplace_back(kind, table.cast<const ProfileTable&>().view());
    }
    return found;
  }

  Resident resident(const py::handle& m) const {
    const auto name = m.attr("model").cast<std::string>();
    const auto model = models_.find(name);
    if (model == models_.end()) {
      throw Refusal(Reason::unknown_model, "no deployment is called " + name, "models.model");
    }
    return {model->second,
            static_cast<Residency>(m.attr("state").cast<int>()),
            m.attr("running").cast<int>(),
            m.attr("waiting").cast<int>(),
            m.attr("context_tokens").cast<double>(),
            m.attr("waiting_tokens").cast<double>(),
            m.attr("tbt_ms").cast<float>()};
  }

  py::list tables_;  // kept alive: the view reads their memory
  std::unordered_map<std::string, int> models_;
  ClusterView view_;
};

const char* action_name(const Placement& p) {
  switch (p.action) {
    case Action::run:
      return "run";
    case Action::load:
      return "load";
    case Action::wake:
      return "wake";
  }
  return "";
}

}  // namespace
}  // namespace festina::placement

namespace festina::bindings {

void register_placement(py::module_& m) {
  using placement::NamedView;
  using placement::Placement;
  py::register_exception_translator(&placement::translate);
  py::class_<Placement>(m, "Placement", "Where a request should run.")
      .def_readonly("slot", &Placement::slot)
      .def_property_readonly("action", &placement::action_name)
      .def_readonly("on_time", &Placement::on_time)
      .def_readonly("clock_mhz", &Placement::clock_mhz)
      .def_readonly("ttft_ms", &Placement::ttft_ms)
      .def_readonly("tbt_ms", &Placement::tbt_ms)
      .def_readonly("energy_j", &Placement::energy_j);
  py::class_<NamedView>(m, "ClusterView",
                        "The native view behind festina.control.placement.ClusterView.")
      .def(py::init<const placement::Tables&, const placement::Settings&>(), py::arg("tables"),
           py::arg("settings"))
      .def("add_model", &NamedView::add_model, py::arg("name"), py::arg("profile_model"),
           py::arg("ttft_ms"), py::arg("tbt_ms"), py::arg("context_tokens"))
      .def(
          "add_gpu",
          [](NamedView& v, const std::string& name, const std::string& device_kind, int sms_total,
             const std::vector<int>& clocks_mhz, double memory_bytes,
             const std::vector<int>& models) {
            return v.view().add_gpu(name, device_kind, sms_total, clocks_mhz, memory_bytes, models);
          },
          py::arg("name"), py::arg("device_kind"), py::arg("sms_total"), py::arg("clocks_mhz"),
          py::arg("memory_bytes"), py::arg("models"))
      .def(
          "remove_gpu", [](NamedView& v, int slot) { v.view().remove_gpu(slot); }, py::arg("slot"))
      .def("update", &NamedView::update, py::arg("slot"), py::arg("summary"))
      .def("place", &NamedView::place, py::arg("model"), py::arg("input_tokens"),
           py::arg("max_tokens"), py::arg("ttft_ms"), py::arg("tbt_ms"), py::arg("exclude"))
      .def(
          "reserve",
          [](NamedView& v, int slot, std::uint64_t ticket, int model, int input_tokens,
             int max_tokens, double now_ms) {
            v.view().reserve(slot, ticket, model, input_tokens, max_tokens, now_ms);
          },
          py::arg("slot"), py::arg("ticket"), py::arg("model"), py::arg("input_tokens"),
          py::arg("max_tokens"), py::arg("now_ms"))
      .def(
          "expire", [](NamedView& v, double now_ms) { return v.view().expire(now_ms); },
          py::arg("now_ms"))
      .def(
          "reserved", [](NamedView& v, int slot) { return v.view().reserved(slot); },
          py::arg("slot"));
}

}  // namespace festina::bindings
