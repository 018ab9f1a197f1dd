#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"

// What policies do to a cluster: requests, weights, clocks and steps. The contracts are beside the
// declarations in cluster.hpp.
namespace festina::simulator {

inline void Cluster::enqueue(Gpu& g, int r) {
  Request& q = own(r);
  q.stage = Stage::waiting;
  q.gpu = g.index;
  Lane& l = lane(g, q.model);
  l.waiting.push_back(r);
  l.last_used_ms = now_ms_;
  ++g.requests;
  q.cold = q.cold || l.weights != Weights::ready || !g.awake();
  touch(g);
}

inline void Cluster::withdraw(int r) {
  Request& q = own(r);
  Gpu& g = gpu(q.gpu);
  auto& waiting = g.lane(q.model)->waiting;
  waiting.erase(std::find(waiting.begin(), waiting.end(), r));
  g.kv_bytes -= kv_bytes(q.model, q.done_tokens);
  q.done_tokens = 0;
  release(g, r);
  q.stage = Stage::queued;
  q.gpu = kNone;
  --g.requests;
  touch(g);
}

inline void Cluster::load(Gpu& g, int model_index) {
  Lane& l = lane(g, model_index);
  l.weights = Weights::loading;
  l.last_used_ms = now_ms_;
  g.weight_bytes += weight_bytes(model_index);
  settle(g);
  ++g.loads;
  ++counts_.loads;
  const double starts_ms = std::max(now_ms_, g.link_free_ms);
  g.link_free_ms = starts_ms + load_ms(model_index);
  keep_in_host(model_index);
  record({g.index, model_index, "load", starts_ms, g.link_free_ms, 0, 0, 0, 0});
  events_.push(g.link_free_ms, EventKind::loaded, g.index, model_index);
  rerate(g);
}

inline void Cluster::unload(Gpu& g, int model_index) {
  Lane& l = *g.lane(model_index);
  if (l.weights == Weights::loading) throw Misuse("unload", "weights that are not on their way");
  if (l.weights != Weights::absent) g.weight_bytes -= weight_bytes(model_index);
  l.weights = Weights::absent;
  if (!l.empty()) return;
  const std::int16_t at = g.lane_of[static_cast<std::size_t>(model_index)];
  g.lane_of[static_cast<std::size_t>(g.lanes.back()->model)] = at;
  g.lane_of[static_cast<std::size_t>(model_index)] = kNone;
  std::swap(g.lanes[static_cast<std::size_t>(at)], g.lanes.back());
  g.lanes.pop_back();
}

inline void Cluster::park(Gpu& g) {
  settle(g);
  g.power = Power::parked;
  rerate(g);
}

inline void Cluster::wake(Gpu& g) {
  if (g.power != Power::parked) return;
  settle(g);
  g.power = Power::waking;
  events_.push(now_ms_ + device_.wake_ms, EventKind::woken, g.index);
  rerate(g);
}

inline void Cluster::set_clock(Gpu& g, int clock) {
  if (clock == g.clock_target) return;
  settle(g);
  g.clock_target = clock;
  g.clock_asked_ms = now_ms_;
  ++g.clock_version;
  if (clock != g.clock) {  // else back before the switch took place
    ++counts_.clock_switches;
    events_.push(now_ms_ + device_.clock_switch_ms, EventKind::clock_set, g.index, 0,
                 g.clock_version);
  }
  if (g.steps.empty()) rerate(g);
}

inline void Cluster::start(Gpu& g, Lane& l, int decodes, std::vector<Chunk> chunks, int rung) {
  int sms = table().sms(rung);
  for (const Step& other : g.steps) sms += table().sms(other.rung);
  if (sms > table().sms(full_rung())) throw Misuse("rung", "no more SMs than the GPU has");
  settle(g);
  for (const Chunk& c : chunks) admit(g, l, c.request);
  Step s;
  s.lane = &l;
  s.rung = rung;
  s.decodes = decodes;
  s.chunks = std::move(chunks);
  s.work = work(l, decodes, s.chunks);
  s.noise = noise();
  s.start_ms = now_ms_;
  s.clock_at_start = g.clock;
  s.predicted_ms = belief_.step(l.model, s.work, rung, g.clock).latency_ms;
  s.undisturbed = g.steps.empty();
  for (Step& other : g.steps) other.undisturbed = false;
  reprice(g, s);
  l.busy = true;
  l.prefilling = l.prefilling || !s.chunks.empty();
  l.decoding = l.decoding || decodes > 0;
  l.last_step_ms = l.last_used_ms = now_ms_;
  ++g.timer_version;  // the end of the step comes first
  g.steps.push_back(std::move(s));
  ++counts_.steps;
  rerate(g);
}

inline void Cluster::join(Gpu& g, int r) {
  Request& q = own(r);
  Lane& l = lane(g, q.model);
  q.stage = Stage::running;
  q.gpu = g.index;
  l.running.push_back(r);
  l.context_tokens += q.done_tokens;
  l.due_ms = std::min(l.due_ms, q.next_due_ms());
  l.tbt_ms = std::min(l.tbt_ms, static_cast<double>(q.tbt_ms));
  touch(g);
}

inline void Cluster::migrate(int r, Gpu& to) {
  Request& q = own(r);
  Gpu& from = gpu(q.gpu);
  Lane& l = *from.lane(q.model);
  l.running.erase(std::find(l.running.begin(), l.running.end(), r));
  refresh(l);
  depart(from, r);
  arrive(to, r);
  ++counts_.migrations;
  touch(from);
}

inline void Cluster::hand_over(int r, Gpu& to) {
  Gpu& from = gpu(request(r).gpu);
  depart(from, r);
  arrive(to, r);
  touch(from);
}

inline void Cluster::evict(int r) {
  Request& q = own(r);
  Gpu& g = gpu(q.gpu);
  Lane& l = *g.lane(q.model);
  l.running.erase(std::find(l.running.begin(), l.running.end(), r));
  refresh(l);
  g.kv_bytes -= kv_bytes(q.model, q.done_tokens);
  release(g, r);
  q.done_tokens = 0;
  q.stage = Stage::waiting;
  l.waiting.push_front(r);
  ++counts_.evictions;
}

inline void Cluster::admit(Gpu& g, Lane& l, int r) {
  double& held = reserved_[static_cast<std::size_t>(r)];
  if (held > 0) return;
  held = expected_kv_bytes(r);
  g.reserved_bytes += held;
  l.reserved_bytes += held;
  Request& q = own(r);
  q.done_tokens = q.cached();
  g.kv_bytes += kv_bytes(q.model, q.done_tokens);
}

inline void Cluster::release(Gpu& g, int r) {
  double& held = reserved_[static_cast<std::size_t>(r)];
  unreserve(g.reserved_bytes, held);
  unreserve(g.lane(request(r).model)->reserved_bytes, held);
  held = 0;
}

inline void Cluster::depart(Gpu& g, int r) {
  g.kv_bytes -= kv_bytes(request(r).model, request(r).done_tokens);
  release(g, r);
  --g.requests;
}

inline void Cluster::arrive(Gpu& to, int r) {
  Request& q = own(r);
  q.stage = Stage::moving;
  q.gpu = to.index;
  settle(to);
  ++to.requests;
  ++to.moves;
  Lane& l = lane(to, q.model);
  ++l.incoming;
  double& held = reserved_[static_cast<std::size_t>(r)];
  held = expected_kv_bytes(r);
  to.reserved_bytes += held;
  l.reserved_bytes += held;
  to.kv_bytes += kv_bytes(q.model, q.done_tokens);
  events_.push(now_ms_ + move_ms(r), EventKind::moved, r);
  rerate(to);
}

inline void Cluster::refresh(Lane& l) {
  l.due_ms = kNever;
  l.tbt_ms = kNever;
  l.context_tokens = 0;
  for (const int r : l.running) {
    l.due_ms = std::min(l.due_ms, request(r).next_due_ms());
    l.tbt_ms = std::min(l.tbt_ms, static_cast<double>(request(r).tbt_ms));
    l.context_tokens += request(r).done_tokens;
  }
}

inline void Cluster::fill_host() {
  double left = setup_.host_memory_bytes;
  for (int m = 0; m < models(); ++m) {
    if (weight_bytes(m) > left) continue;
    left -= weight_bytes(m);
    in_host_[static_cast<std::size_t>(m)] = 1;
    host_order_.push_back(m);
  }
  host_free_bytes_ = left;
}

inline void Cluster::keep_in_host(int m) {
  host_order_.remove(m);
  const double need = in_host(m) ? 0 : weight_bytes(m);
  if (need > setup_.host_memory_bytes) return;
  while (host_free_bytes_ < need) {
    const int gone = host_order_.front();
    host_order_.pop_front();
    in_host_[static_cast<std::size_t>(gone)] = 0;
    host_free_bytes_ += weight_bytes(gone);
  }
  host_free_bytes_ -= need;
  in_host_[static_cast<std::size_t>(m)] = 1;
  host_order_.push_back(m);
}

}  // namespace festina::simulator
