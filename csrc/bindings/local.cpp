#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "core/local/situation.hpp"
#include "core/profile_table/table.hpp"

// Python's side of csrc/core/local; festina/control/local_festina.py and step_time.py are the
// documented surface. Figures come as flat lists of floats, which cost a tenth of rows.
namespace py = pybind11;

namespace festina::local {
namespace {

using Settings = py::typing::Dict<py::str, py::object>;
using Floats = py::typing::List<py::float_>;
using Rows = py::typing::List<int>;
using Chunks = py::typing::List<py::typing::Tuple<int, int>>;

// A model's cost, and the table that it reads.
struct StepCost {
  ModelCost model;
  py::object table;
};

using Costs = py::typing::List<StepCost>;

void require(const char* field, int value, int limit) {
  if (value < 0 || value >= limit) {
    throw py::value_error(std::string(field) + " " + std::to_string(value) + " is not below " +
                          std::to_string(limit));
  }
}

StepCost profiled(const py::object& table, int model, int rung, int clock) {
  const ProfileView& view = table.cast<const ProfileTable&>().view();
  require("model", model, view.models());
  require("rung", rung, view.rungs());
  require("clock", clock, view.clocks());
  return {{&view, model, rung, clock, {}}, table};
}

StepCost linear(double fixed_ms, double token_ms, double decode_ms, double context_token_ms,
                double spread) {
  return {{nullptr, 0, 0, 0, {fixed_ms, token_ms, decode_ms, context_token_ms, spread}},
          py::none()};
}

// Reads one list of floats, row by row.
class Reader {
 public:
  Reader(const char* field, const Floats& values, py::ssize_t columns)
      : field_(field), values_(values.ptr()), columns_(columns) {}

  py::ssize_t row() const { return at_ / columns_; }
  double next() {
    if (at_ >= PyList_GET_SIZE(values_)) fail();
    const double value = PyFloat_AsDouble(PyList_GET_ITEM(values_, at_++));
    if (value == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return value;
  }
  void require_end() const {
    if (at_ != PyList_GET_SIZE(values_)) fail();
  }

 private:
  [[noreturn]] void fail() const {
    throw py::value_error(std::string(field_) + " holds " +
                          std::to_string(PyList_GET_SIZE(values_)) +
                          " values, which is not what the lanes have");
  }
  const char* field_;
  PyObject* values_;
  py::ssize_t columns_;
  py::ssize_t at_ = 0;
};

Options options_from(const py::dict& settings) {
  Options o;
  const auto get = [&settings]<class T>(const char* name, T& value) {
    value = settings[name].cast<T>();
  };
  get("pace", o.pace);
  get("margin", o.margin);
  get("sigmas", o.sigmas);
  get("batch_max", o.batch_max);
  get("chunk_tokens", o.chunk_tokens);
  get("chunk_min_tokens", o.chunk_min_tokens);
  get("chunk_unit_tokens", o.chunk_unit_tokens);
  get("by_deadline", o.by_deadline);
  get("least_chunk", o.least_chunk);
  get("turns", o.turns);
  if (o.batch_max < 1 || o.chunk_tokens < 1 || o.chunk_unit_tokens < 1) {
    throw py::value_error("batch_max, chunk_tokens and chunk_unit_tokens are at least 1");
  }
  return o;
}

// What to do, by places in the lists of the call. `lane` < 0: nothing for `wait_ms`.
struct Answer {
  int lane;
  Rows decodes;
  Chunks chunks;
  double wait_ms;
};

class LocalChooser {
 public:
  explicit LocalChooser(const Settings& settings) : situation_(options_from(settings)) {}

  Answer choose(const Costs& costs, const Floats& lanes, const Floats& decodes,
                const Floats& prompts, int slots) {
    read(costs, lanes, decodes, prompts);
    const Choice choice = situation_.choose(slots, 0);
    Answer answer{choice.lane, {}, {}, choice.wait_until_ms};
    if (choice.lane == kNone) return answer;
    for (const Decode& d : situation_.decodes(choice)) answer.decodes.append(d.id);
    for (const Chunk& c : choice.chunks) answer.chunks.append(py::make_tuple(c.id, c.tokens));
    return answer;
  }

 private:
  void read(const Costs& costs, const Floats& lane_list, const Floats& decode_list,
            const Floats& prompt_list) {
    Reader lanes("lanes", lane_list, 5), decodes("decodes", decode_list, 5),
        prompts("prompts", prompt_list, 6);
    situation_.clear();
    for (const py::handle cost : costs) {
      const auto decode_count = static_cast<py::ssize_t>(lanes.next());
      const auto prompt_count = static_cast<py::ssize_t>(lanes.next());
      const double memory_free = lanes.next();
      const bool alone = lanes.next() != 0;
      situation_.add_lane(cost.cast<const StepCost&>().model, memory_free, alone, lanes.next());
      for (py::ssize_t i = 0; i < decode_count; ++i) situation_.add(decode(decodes));
      for (py::ssize_t i = 0; i < prompt_count; ++i) situation_.add(prompt(prompts));
    }
    for (const Reader* reader : {&lanes, &decodes, &prompts}) reader->require_end();
  }

  static Decode decode(Reader& from) {
    Decode d{};
    d.id = static_cast<int>(from.row());
    d.cached_tokens = from.next();
    d.last_ms = from.next();
    d.tbt_ms = from.next();
    d.pace = from.next();
    d.outgrown = from.next() != 0;
    return d;
  }
  static Prompt prompt(Reader& from) {
    Prompt p{};
    p.id = static_cast<int>(from.row());
    p.pending_tokens = static_cast<int>(from.next());
    p.cached_tokens = static_cast<int>(from.next());
    p.since_ms = from.next();
    p.objective_ms = from.next();
    p.admitted = from.next() != 0;
    p.memory = from.next();
    return p;
  }

  Situation situation_;
};

StepWork work(int decodes, double context_mean, int tokens, double cached_mean) {
  return {decodes, context_mean, tokens, cached_mean};
}

void register_costs(py::module_& m) {
  py::class_<StepCost>(m, "StepCost", "What steps of one model cost at one operating point.")
      .def_static("profiled", &profiled, py::arg("table"), py::arg("model"), py::arg("rung"),
                  py::arg("clock"), "By the table, with its corrections.")
      .def_static("linear", &linear, py::arg("fixed_ms"), py::arg("token_ms"), py::arg("decode_ms"),
                  py::arg("context_token_ms"), py::arg("spread"),
                  "Linear in the work, for a device without a profile.")
      .def(
          "latency_ms",
          [](const StepCost& c, int decodes, double context_mean, int tokens, double cached_mean) {
            return c.model.latency_ms(work(decodes, context_mean, tokens, cached_mean));
          },
          py::arg("decodes"), py::arg("context_mean"), py::arg("tokens"), py::arg("cached_mean"))
      .def(
          "spread",
          [](const StepCost& c, int decodes, double context_mean, int tokens, double cached_mean) {
            return c.model.spread(work(decodes, context_mean, tokens, cached_mean));
          },
          py::arg("decodes"), py::arg("context_mean"), py::arg("tokens"), py::arg("cached_mean"),
          "Relative error of the latency.");
}

}  // namespace
}  // namespace festina::local

namespace festina::bindings {

void register_local(py::module_& m) {
  using local::Answer;
  using local::LocalChooser;
  local::register_costs(m);
  py::class_<Answer>(m, "LocalChoice", "What one device should do now.")
      .def_readonly("lane", &Answer::lane)
      .def_readonly("decodes", &Answer::decodes)
      .def_readonly("chunks", &Answer::chunks)
      .def_readonly("wait_ms", &Answer::wait_ms);
  py::class_<LocalChooser>(m, "LocalChooser",
                           "The native rule behind festina.control.local_festina.")
      .def(py::init<const local::Settings&>(), py::arg("settings"))
      .def("choose", &LocalChooser::choose, py::arg("costs"), py::arg("lanes"), py::arg("decodes"),
           py::arg("prompts"), py::arg("slots"));
}

}  // namespace festina::bindings
