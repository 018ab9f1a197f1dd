#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/placement/types.hpp"

// The packed records that one placement scans, and the scans. One branch-free pass over parallel
// arrays of floats; what depends on the request alone comes from a small table of quotes that each
// record points into.

// gcc compiles the scans twice and picks the wider one at load time. Sanitizers cannot run the
// resolver that picks, so they get the plain form.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FESTINA_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define FESTINA_WIDE
#endif

namespace festina::placement {

// GPUs that could run one model: entry i of each array is one GPU.
struct Rows {
  std::vector<std::int32_t> slot;
  std::vector<std::int32_t> quote;        // index into the request's quotes
  std::vector<float> wait_ms;             // until a new prefill can start
  std::vector<float> stretch;             // >= 1: decode steps in between lengthen a prefill
  std::vector<float> round_ms;            // one step of every resident, this request included,
  std::vector<float> round_ms_per_token;  //   and its growth with this request's context
  std::vector<float> step_j;              // marginal energy of one output token
  std::vector<float> step_j_per_token;    //   and its growth with this request's context
  std::vector<float> tbt_max_ms;          // tightest objective of the residents, margin taken off
  std::vector<float> kv_free;             // tokens; < 0 where the queue is full
  std::vector<float> kv_total;            // tokens; < 0 where the queue is full
  std::vector<float> free_bytes;          // paper's tie-breaks
  std::vector<float> sms_free;

  std::size_t size() const noexcept { return slot.size(); }

  void grow() {
    each([](auto& column) { column.emplace_back(); });
  }
  // Removes entry i; the last entry takes its place.
  void remove(std::size_t i) {
    each([i](auto& column) {
      column[i] = column.back();
      column.pop_back();
    });
  }

 private:
  template <class F>
  void each(F f) {
    f(slot), f(quote), f(wait_ms), f(stretch), f(round_ms), f(round_ms_per_token), f(step_j);
    f(step_j_per_token), f(tbt_max_ms), f(kv_free), f(kv_total), f(free_bytes), f(sms_free);
  }
};

// What a request costs in one situation: a GPU class at a clock (and, in the paper's form, a rung).
struct Quotes {
  std::vector<float> prefill_ms;
  std::vector<float> round_ms;      // added to the row's
  std::vector<float> energy_j;      // added to the row's
  std::vector<std::int32_t> clock;  // index in the profile

  // n quotes for situations in which nothing runs.
  void reset(std::size_t n) {
    prefill_ms.assign(n, kNever);
    round_ms.assign(n, kNever);
    energy_j.assign(n, kNever);
    clock.assign(n, 0);
  }
};

// The request, as the scans see it.
struct Query {
  float ttft_max_ms;  // margin taken off
  float tbt_max_ms;
  float kv_tokens;     // the most that it will hold
  float context_mean;  // of its decode steps, for energy
  float context_last;  // of its last decode step, for TBT
  float output_tokens;
};

// cost[i] = marginal energy of running the request on entry i, +inf where it would be late there.
FESTINA_WIDE inline void score(const Rows& rows, const Quotes& quotes, const Query& query,
                               float* __restrict cost) {
  const std::size_t n = rows.size();
  const std::int32_t* __restrict quote = rows.quote.data();
  const float* __restrict wait_ms = rows.wait_ms.data();
  const float* __restrict stretch = rows.stretch.data();
  const float* __restrict round_ms = rows.round_ms.data();
  const float* __restrict round_ms_per_token = rows.round_ms_per_token.data();
  const float* __restrict step_j = rows.step_j.data();
  const float* __restrict step_j_per_token = rows.step_j_per_token.data();
  const float* __restrict tbt_max_ms = rows.tbt_max_ms.data();
  const float* __restrict kv_free = rows.kv_free.data();
  const float* __restrict quoted_prefill_ms = quotes.prefill_ms.data();
  const float* __restrict quoted_round_ms = quotes.round_ms.data();
  const float* __restrict quoted_j = quotes.energy_j.data();
  const Query q = query;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t at = quote[i];
    const float ttft = wait_ms[i] + stretch[i] * quoted_prefill_ms[at];
    const float tbt = round_ms[i] + q.context_last * round_ms_per_token[i] + quoted_round_ms[at];
    const float energy =
        quoted_j[at] + q.output_tokens * (step_j[i] + q.context_mean * step_j_per_token[i]);
    float c = ttft <= q.ttft_max_ms ? energy : kNever;
    c = tbt <= q.tbt_max_ms ? c : kNever;
    c = tbt <= tbt_max_ms[i] ? c : kNever;
    cost[i] = q.kv_tokens <= kv_free[i] ? c : kNever;
  }
}

// cost[i] = how late the request would be on entry i: the larger ratio of prediction to objective,
// plus the share of its KV cache that does not fit yet; +inf where it could never run.
FESTINA_WIDE inline void lateness(const Rows& rows, const Quotes& quotes, const Query& query,
                                  float* __restrict cost) {
  const std::size_t n = rows.size();
  const std::int32_t* __restrict quote = rows.quote.data();
  const float* __restrict wait_ms = rows.wait_ms.data();
  const float* __restrict stretch = rows.stretch.data();
  const float* __restrict round_ms = rows.round_ms.data();
  const float* __restrict round_ms_per_token = rows.round_ms_per_token.data();
  const float* __restrict tbt_max_ms = rows.tbt_max_ms.data();
  const float* __restrict kv_free = rows.kv_free.data();
  const float* __restrict kv_total = rows.kv_total.data();
  const float* __restrict quoted_prefill_ms = quotes.prefill_ms.data();
  const float* __restrict quoted_round_ms = quotes.round_ms.data();
  const Query q = query;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t at = quote[i];
    const float ttft = wait_ms[i] + stretch[i] * quoted_prefill_ms[at];
    const float tbt = round_ms[i] + q.context_last * round_ms_per_token[i] + quoted_round_ms[at];
    const float late_ttft = ttft / q.ttft_max_ms;
    const float tbt_max = q.tbt_max_ms < tbt_max_ms[i] ? q.tbt_max_ms : tbt_max_ms[i];
    const float late_tbt = tbt / tbt_max;
    const float late = late_ttft > late_tbt ? late_ttft : late_tbt;
    const float short_of = (q.kv_tokens - kv_free[i]) / q.kv_tokens;
    const float total = late + (short_of > 0 ? short_of : 0.0F);
    cost[i] = q.kv_tokens <= kv_total[i] ? total : kNever;
  }
}

// Index of the least value, the first among equals; n where all are +inf.
FESTINA_WIDE inline std::size_t argmin(const float* __restrict values, std::size_t n) {
  constexpr std::size_t kLanes = 16;
  float least[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) least[l] = kNever;
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      least[l] = values[i + l] < least[l] ? values[i + l] : least[l];
    }
  }
  float best = kNever;
  for (const float value : least) best = value < best ? value : best;
  for (; i < n; ++i) best = values[i] < best ? values[i] : best;
  if (!(best < kNever)) return n;
  for (i = 0; values[i] != best; ++i) {
  }
  return i;
}

}  // namespace festina::placement
