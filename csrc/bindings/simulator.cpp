#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "core/profile_table/table.hpp"
#include "core/simulator/policies/make.hpp"
#include "core/simulator/run.hpp"

// Python's side of csrc/core/simulator; festina/simulator/run.py is the documented surface. One
// call simulates one policy; what it found goes back as arrays.
namespace py = pybind11;

namespace festina::simulator {
namespace {

template <class T>
using Column = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Found = py::typing::Dict<py::str, py::object>;
using Numbers = py::typing::Dict<py::str, py::float_>;
using Rows = py::typing::List<Found>;

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<Request> requests_from(const py::dict& columns) {
  const auto arrival = columns["arrival_ms"].cast<Column<double>>();
  const auto model = columns["model"].cast<Column<int>>();
  const auto input = columns["input_tokens"].cast<Column<int>>();
  const auto cached = columns["cached_tokens"].cast<Column<int>>();
  const auto output = columns["output_tokens"].cast<Column<int>>();
  const auto follows = columns["follows"].cast<Column<int>>();
  const auto ttft = columns["ttft_ms"].cast<Column<float>>();
  const auto tbt = columns["tbt_ms"].cast<Column<float>>();
  std::vector<Request> requests(static_cast<std::size_t>(arrival.size()));
  for (py::ssize_t i = 0; i < arrival.size(); ++i) {
    Request& q = requests[static_cast<std::size_t>(i)];
    q.arrival_ms = arrival.at(i);
    q.model = model.at(i);
    q.input_tokens = input.at(i);
    q.cached_tokens = cached.at(i);
    q.output_tokens = output.at(i);
    q.follows = follows.at(i);
    q.ttft_ms = ttft.at(i);
    q.tbt_ms = tbt.at(i);
  }
  return requests;
}

std::vector<Deployment> deployments_from(const py::list& rows) {
  std::vector<Deployment> deployments;
  for (const auto& row : rows) {
    const auto d = row.cast<py::dict>();
    deployments.push_back({d["name"].cast<std::string>(), d["profile"].cast<int>(),
                           d["time_bias"].cast<std::array<double, kPhases>>(),
                           d["power_bias"].cast<std::array<double, kPhases>>()});
  }
  return deployments;
}

Device device_from(const py::dict& from) {
  const auto get = [&from](const char* name) { return from[name].cast<double>(); };
  Device d{};
  d.memory_bytes = get("memory_bytes");
  d.parked_w = get("parked_w");
  d.power_cap_w = get("power_cap_w");
  d.wake_ms = get("wake_ms");
  d.clock_switch_ms = get("clock_switch_ms");
  d.load_bytes_per_s = get("load_bytes_per_s");
  d.load_fixed_ms = get("load_fixed_ms");
  d.storage_bytes_per_s = get("storage_bytes_per_s");
  d.peer_bytes_per_s = get("peer_bytes_per_s");
  d.move_fixed_ms = get("move_fixed_ms");
  d.bandwidth_bytes_per_s = get("bandwidth_bytes_per_s");
  d.byte_j = get("byte_j");
  return d;
}

Setup setup_from(const py::dict& from) {
  Setup s;
  s.gpus = from["gpus"].cast<int>();
  s.seed = from["seed"].cast<std::uint64_t>();
  s.noise = from["noise"].cast<double>();
  s.host_memory_bytes = from["host_memory_bytes"].cast<double>();
  s.default_clock_mhz = from["default_clock_mhz"].cast<int>();
  s.batch_max = from["batch_max"].cast<int>();
  s.duration_ms = from["duration_ms"].cast<double>();
  s.drain_ms = from["drain_ms"].cast<double>();
  s.bucket_ms = from["bucket_ms"].cast<double>();
  s.window_from_ms = from["window_from_ms"].cast<double>();
  s.window_to_ms = from["window_to_ms"].cast<double>();
  return s;
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const Misuse& e) {
    const py::object type = py::module_::import("festina.errors").attr("SimulationError");
    const py::object value =
        type(e.what(), py::arg("field") = e.field(), py::arg("expected") = e.expected());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

py::list spans_of(const Cluster& c) {
  py::list rows;
  for (const Span& s : c.spans()) {
    rows.append(py::make_tuple(s.gpu, s.model, s.name, s.start_ms, s.end_ms, s.clock_mhz, s.sms,
                               s.batch, s.tokens));
  }
  return rows;
}

Found requests_found(const Cluster& c) {
  std::vector<std::uint8_t> stage, cold;
  std::vector<int> generated, gaps_over;
  std::vector<double> sent, first, last, gap_max, energy;
  for (const Request& q : c.requests()) {
    stage.push_back(static_cast<std::uint8_t>(q.stage));
    cold.push_back(q.cold);
    generated.push_back(q.generated);
    gaps_over.push_back(q.gaps_over);
    sent.push_back(q.sent_ms);
    first.push_back(q.first_ms);
    last.push_back(q.last_ms);
    gap_max.push_back(q.gap_max_ms);
    energy.push_back(q.energy_j);
  }
  Found found;
  found["stage"] = array_of(stage);
  found["cold"] = array_of(cold);
  found["generated"] = array_of(generated);
  found["gaps_over"] = array_of(gaps_over);
  found["sent_ms"] = array_of(sent);
  found["first_ms"] = array_of(first);
  found["last_ms"] = array_of(last);
  found["gap_max_ms"] = array_of(gap_max);
  found["energy_j"] = array_of(energy);
  return found;
}

Found timeline_of(const Cluster& c) {
  std::vector<double> energy, awake, clock, busy;
  std::vector<int> running, queued;
  for (const Bucket& b : c.meter().buckets()) {
    energy.push_back(b.energy_j);
    awake.push_back(b.awake_ms);
    clock.push_back(b.clock_mhz_ms);
    busy.push_back(b.busy_ms);
  }
  for (const Cluster::Sample& s : c.samples()) {
    running.push_back(s.running);
    queued.push_back(s.queued);
  }
  Found found;
  found["energy_j"] = array_of(energy);
  found["awake_ms"] = array_of(awake);
  found["clock_mhz_ms"] = array_of(clock);
  found["busy_ms"] = array_of(busy);
  found["running"] = array_of(running);
  found["queued"] = array_of(queued);
  return found;
}

Found found_of(Cluster& c) {
  Found found;
  std::vector<double> energy, edges, overhead;
  for (std::size_t kind = 0; kind < kEnergyKinds; ++kind) {
    energy.push_back(c.meter().energy_j(static_cast<EnergyKind>(kind)));
  }
  for (int i = 0; i <= Histogram::kBuckets; ++i) edges.push_back(Histogram::edge_ms(i));
  for (int i = 0; i < c.gpus(); ++i) overhead.push_back(c.gpu(i).overhead_j);
  const Counts& n = c.counts();
  found["energy_j"] = array_of(energy);
  found["overhead_j"] = array_of(overhead);
  found["edges_ms"] = array_of(edges);
  found["ttft"] = array_of(c.ttft().counts());
  found["tbt"] = array_of(c.tbt().counts());
  found["requests"] = requests_found(c);
  found["timeline"] = timeline_of(c);
  found["spans"] = spans_of(c);
  found["end_ms"] = py::float_(c.end_ms());
  found["digest"] = py::int_(c.digest());
  found["completed"] = py::int_(n.completed);
  found["failed"] = py::int_(n.failed);
  found["rejected"] = py::int_(n.rejected);
  found["output_tokens"] = py::int_(n.output_tokens);
  found["migrations"] = py::int_(n.migrations);
  found["clock_switches"] = py::int_(n.clock_switches);
  found["loads"] = py::int_(n.loads);
  found["evictions"] = py::int_(n.evictions);
  found["steps"] = py::int_(n.steps);
  found["events"] = py::int_(n.events);
  return found;
}

Found simulate(const ProfileTable& belief, const ProfileTable& truth, const Numbers& device,
               const Numbers& setup, const Rows& deployments, const Found& columns,
               const std::string& policy, std::map<std::string, double> options,
               const std::function<bool(double)>& progress) {
  const Setup s = setup_from(setup);
  bool learns = true;
  if (const auto found = options.find("online_correction"); found != options.end()) {
    learns = found->second != 0;
    options.erase(found);
  }
  const std::unique_ptr<Policy> chosen = make_policy(policy, s.gpus, options);
  Cluster cluster(belief.view(), truth.view(), device_from(device), s,
                  deployments_from(deployments), requests_from(columns), learns);
  {
    const py::gil_scoped_release release;
    std::function<bool(double)> told;
    if (progress) {
      told = [&progress](double share) {
        const py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        return progress(share);
      };
    }
    cluster.run(*chosen, told);
  }
  return found_of(cluster);
}

}  // namespace
}  // namespace festina::simulator

namespace festina::bindings {

void register_simulator(py::module_& m) {
  py::register_exception_translator(&simulator::translate);
  m.def("simulate", &simulator::simulate, py::arg("belief"), py::arg("truth"), py::arg("device"),
        py::arg("setup"), py::arg("deployments"), py::arg("columns"), py::arg("policy"),
        py::arg("options"), py::arg("progress"),
        "Simulates one policy. `columns` are those of festina.simulator.workload.Workload.");
}

}  // namespace festina::bindings
