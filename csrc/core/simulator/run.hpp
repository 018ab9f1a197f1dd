#pragma once
#include <cmath>

#include "core/simulator/cluster.hpp"

// How a cluster's time passes: what each event does.
namespace festina::simulator {

inline void Cluster::run(Policy& policy, const std::function<bool(double)>& progress) {
  followers_.resize(requests_.size());
  std::vector<int> order;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    const Request& q = requests_[i];
    if (q.follows == kNone) {
      order.push_back(static_cast<int>(i));
    } else {
      followers_[static_cast<std::size_t>(q.follows)].push_back(static_cast<int>(i));
    }
  }
  policy.start(*this);
  for (Gpu& g : gpus_) rerate(g);
  if (policy.tick_ms() > 0) events_.push(policy.tick_ms(), EventKind::tick, 0);

  const double last_ms = setup_.duration_ms + setup_.drain_ms;
  double sample_ms = 0;
  double told_ms = 0;
  std::size_t next = 0;
  bool stopped = false;
  while (!stopped) {
    // Arrivals come from the sorted columns, all else from the heap.
    const double arrival_ms = next < order.size() ? request(order[next]).arrival_ms : kNever;
    const double event_ms = events_.empty() ? kNever : events_.next().at_ms;
    const double at_ms = std::min(arrival_ms, event_ms);
    while (sample_ms <= at_ms && sample_ms <= last_ms) {
      sample();
      sample_ms += setup_.bucket_ms;
    }
    if (at_ms > last_ms) break;
    now_ms_ = at_ms;
    if (arrival_ms <= event_ms) {
      send(policy, order[next++]);
    } else {
      handle(policy, events_.pop());
    }
    while (!touched_.empty()) {  // grows while policies act on other GPUs
      Gpu& g = gpu(touched_.back());
      touched_.pop_back();
      g.touched = false;
      policy.dispatch(*this, g);
    }
    ++counts_.events;
    if (progress && now_ms_ - told_ms >= setup_.duration_ms / 100) {
      told_ms = now_ms_;
      stopped = !progress(std::min(1.0, now_ms_ / setup_.duration_ms));
    }
  }
  if (!stopped) now_ms_ = last_ms;  // all policies are metered over the same time
  for (Gpu& g : gpus_) {
    settle(g);
    for (const Step& s : g.steps) charge(s);  // cut short
  }
  end_ms_ = now_ms_;
  for (Request& q : requests_) {
    if (q.stage == Stage::done || q.stage == Stage::rejected) continue;
    if (stopped && q.stage == Stage::unsent) continue;  // its time had not come
    q.stage = Stage::failed;
    ++counts_.failed;
  }
  for (const std::size_t kind : {0U, 1U, 2U, 3U, 4U, 5U}) {
    fold(meter_.energy_j(static_cast<EnergyKind>(kind)));
  }
}

inline void Cluster::send(Policy& policy, int r) {
  Request& q = own(r);
  q.sent_ms = now_ms_;
  q.stage = Stage::queued;
  policy.arrived(*this, r);
}

inline void Cluster::handle(Policy& policy, const Event& event) {
  switch (event.kind) {
    case EventKind::send:
      return send(policy, event.subject);
    case EventKind::step_end: {
      Gpu& g = gpu(event.subject);
      if (event.version == g.step_version) end_steps(policy, g);
      return;
    }
    case EventKind::clock_set: {
      Gpu& g = gpu(event.subject);
      if (event.version != g.clock_version) return;
      settle(g);
      g.clock = g.clock_target;
      for (Step& s : g.steps) reprice(g, s);
      rerate(g);
      return touch(g);
    }
    case EventKind::loaded: {
      Gpu& g = gpu(event.subject);
      settle(g);
      --g.loads;
      lane(g, event.detail).weights = Weights::ready;
      rerate(g);
      return touch(g);
    }
    case EventKind::woken: {
      Gpu& g = gpu(event.subject);
      settle(g);
      g.power = Power::awake;
      rerate(g);
      return touch(g);
    }
    case EventKind::moved: {
      Gpu& g = gpu(request(event.subject).gpu);
      settle(g);
      --g.moves;
      --lane(g, request(event.subject).model).incoming;
      rerate(g);
      return join(g, event.subject);
    }
    case EventKind::timer: {
      Gpu& g = gpu(event.subject);
      if (event.version == g.timer_version) touch(g);
      return;
    }
    case EventKind::tick:
      policy.tick(*this);
      events_.push(now_ms_ + policy.tick_ms(), EventKind::tick, 0);
      return;
  }
}

inline void Cluster::end_steps(Policy& policy, Gpu& g) {
  settle(g);
  // What is left then is rounding. It is judged as time: after hours the clock resolves no share of
  // a short step that small, and a step that is never done would end again and again.
  constexpr double kDoneMs = 1e-6;
  std::vector<Step> ended;
  for (std::size_t i = 0; i < g.steps.size();) {
    if (g.steps[i].left * g.steps[i].alone_ms * g.stretch > kDoneMs) {
      ++i;
      continue;
    }
    ended.push_back(std::move(g.steps[i]));
    g.steps.erase(g.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
  for (Step& s : ended) {
    if (s.undisturbed && s.clock_at_start == g.clock) {
      const Phase phase = s.chunks.empty() ? Phase::decode : Phase::prefill;
      belief_.observe(s.lane->model, phase, s.predicted_ms, now_ms_ - s.start_ms);
    }
    end_step(policy, g, s);
  }
  rerate(g);
  touch(g);
}

inline void Cluster::end_step(Policy& policy, Gpu& g, Step& s) {
  Lane& l = *s.lane;
  if (!s.chunks.empty()) l.prefilling = false;
  if (s.decodes > 0) l.decoding = false;
  l.busy = l.prefilling || l.decoding;
  record({g.index, l.model, s.chunks.empty() ? "decode" : "prefill", s.start_ms, now_ms_,
          table().clock_mhz(s.clock_at_start), table().sms(s.rung), s.decodes, s.tokens()});
  charge(s);
  const auto decodes = static_cast<std::size_t>(s.decodes);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < l.running.size(); ++i) {
    const int r = l.running[i];
    if (i < decodes) {
      Request& q = own(r);
      ++q.done_tokens;
      emit(q);
      if (q.generated == q.output_tokens) {
        complete(policy, g, r);
        continue;
      }
    }
    l.running[kept++] = r;
  }
  l.running.resize(kept);
  g.kv_bytes += kv_bytes(l.model, s.decodes);
  // Those that did not fit into the step come first in the next.
  if (kept > static_cast<std::size_t>(setup_.batch_max) && decodes < kept) {
    std::rotate(l.running.begin(), l.running.begin() + static_cast<std::ptrdiff_t>(decodes),
                l.running.end());
  }
  refresh(l);
  for (const Chunk& c : s.chunks) {
    Request& q = own(c.request);
    q.done_tokens += c.tokens;
    g.kv_bytes += kv_bytes(l.model, c.tokens);
    if (q.pending_tokens() > 0) continue;
    l.waiting.erase(std::find(l.waiting.begin(), l.waiting.end(), c.request));
    emit(q);
    if (q.generated == q.output_tokens) {
      complete(policy, g, c.request);
    } else {
      policy.prefilled(*this, c.request);
    }
  }
  make_room(g, l);
}

// Requests bear the energy of a step in proportion to their tokens in it.
inline void Cluster::charge(const Step& s) {
  const double token_j = s.energy_j / (s.tokens() + s.decodes);
  for (std::size_t i = 0; i < static_cast<std::size_t>(s.decodes); ++i) {
    own(s.lane->running[i]).energy_j += token_j;
  }
  for (const Chunk& c : s.chunks) own(c.request).energy_j += token_j * c.tokens;
}

// Outputs grew beyond what was expected: the newest request gives up its cache, unless a step needs
// it, whose end comes back here.
inline void Cluster::make_room(Gpu& g, Lane& l) {
  if (l.decoding) return;
  while (device_.memory_bytes < g.weight_bytes + g.kv_bytes && l.running.size() > 1) {
    evict(l.running.back());
  }
}

inline void Cluster::emit(Request& q) {
  if (q.generated == 0) {
    q.first_ms = now_ms_;
    ttft_.add(now_ms_ - q.sent_ms);
  } else {
    const double gap_ms = now_ms_ - q.last_ms;
    tbt_.add(gap_ms);
    q.gaps_over += gap_ms > static_cast<double>(q.tbt_ms);
    q.gap_max_ms = std::max(q.gap_max_ms, gap_ms);
  }
  ++q.generated;
  ++counts_.output_tokens;
  q.last_ms = now_ms_;
}

inline void Cluster::complete(Policy& policy, Gpu& g, int r) {
  Request& q = own(r);
  q.stage = Stage::done;
  g.kv_bytes -= kv_bytes(q.model, q.done_tokens);
  release(g, r);
  --g.requests;
  ++counts_.completed;
  constexpr double kMemory = 0.05;  // of the exponential average of output lengths
  double& mean = outputs_[static_cast<std::size_t>(q.model)];
  mean += kMemory * (q.output_tokens - mean);
  fold(q.first_ms);
  fold(q.last_ms + r);
  end(r);
  policy.finished(*this, r);
}

inline void Cluster::end(int r) {
  for (const int next : followers_[static_cast<std::size_t>(r)]) {
    events_.push(now_ms_ + request(next).arrival_ms, EventKind::send, next);
  }
}

inline void Cluster::sample() {
  Sample s{0, 0};
  for (const Gpu& g : gpus_) {
    for (const auto& l : g.lanes) {
      s.running += static_cast<int>(l->running.size());
      s.queued += static_cast<int>(l->waiting.size());
    }
  }
  samples_.push_back(s);
}

}  // namespace festina::simulator
