#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <optional>
#include <vector>

#include "core/consolidation/paper.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/summaries.hpp"

// What each model needs of a GPU, from the last minutes of its load (arXiv 2606.30391, section
// 3.5.2, phase one, and appendix E).
namespace festina::simulator {

using consolidation::Observed;

class LoadWindow {
 public:
  explicit LoadWindow(double length_ms) : length_ms_(length_ms) {}

  void add(double now_ms, const Request& q) {
    arrivals_.push_back({now_ms, static_cast<double>(q.uncached()), static_cast<double>(q.ttft_ms),
                         static_cast<double>(q.tbt_ms)});
  }

  // None came within the window: nothing.
  std::optional<Observed> means(double now_ms, double output_tokens) {
    while (!arrivals_.empty() && arrivals_.front().at_ms <= now_ms - length_ms_) {
      arrivals_.pop_front();
    }
    if (arrivals_.empty()) return std::nullopt;
    Observed sum{0, 0, output_tokens, 0, 0};
    for (const Arrival& a : arrivals_) {
      sum.input_tokens += a.input_tokens;
      sum.ttft_ms += a.ttft_ms;
      sum.tbt_ms += a.tbt_ms;
    }
    const auto count = static_cast<double>(arrivals_.size());
    return Observed{count / std::min(length_ms_, std::max(now_ms, 1.0)), sum.input_tokens / count,
                    output_tokens, sum.ttft_ms / count, sum.tbt_ms / count};
  }

 private:
  struct Arrival {
    double at_ms, input_tokens, ttft_ms, tbt_ms;
  };
  double length_ms_;
  std::deque<Arrival> arrivals_;
};

// What the model needs of a GPU here, as the paper's rule sees it.
inline consolidation::PaperModel paper_model(const Cluster& c, int model) {
  return {c.table(),
          c.belief().profile(model),
          c.full_rung(),
          c.top_clock(),
          c.belief().factor(model, Phase::prefill),
          c.belief().factor(model, Phase::decode),
          c.weight_bytes(model),
          c.kv_bytes(model, 1)};
}

}  // namespace festina::simulator
