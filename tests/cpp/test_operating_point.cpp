#include <cmath>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "core/operating_point/solver.hpp"
#include "profile_table_sample.hpp"

namespace {

using namespace festina;
using namespace festina::operating_point;

// Any mixture of tasks gives a plan that the device can carry out.
void plans_fit_the_device(Policy policy) {
  const ProfileTable table(sample::spec(2));
  Options options;
  options.policy = policy;
  options.bandwidth_bytes_per_s = 3e11F;
  Solver solver(table.view(), options);
  std::uint64_t random = 1;
  const auto below = [&random](int limit) {
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int>((random >> 33) % static_cast<std::uint64_t>(limit));
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Task> tasks;
    for (int i = below(40); i > 0; --i) {
      tasks.push_back({below(2), below(2), static_cast<float>(1 + below(2000)),
                       static_cast<float>(below(3000)), static_cast<float>(below(300) - 20),
                       static_cast<float>(below(100)), static_cast<double>(below(100))});
    }
    const State state{500 + below(2000), 20 + below(81), 1000.0, kNever, kNever};
    const Plan& plan = solver.solve(tasks, state);
    CHECK_EQ(plan.rung.size(), tasks.size());
    int sms = 0;
    double bytes = 0;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      CHECK_EQ(plan.rung[i] < 0, std::isinf(plan.latency_ms[i]));
      if (plan.rung[i] < 0) continue;
      sms += table.view().sms(plan.rung[i]);
      bytes += tasks[i].memory_bytes;
      if (plan.on_time) CHECK(plan.latency_ms[i] <= tasks[i].deadline_ms * 1.0001F);
    }
    CHECK(sms <= state.sms);
    CHECK(bytes <= state.memory_free_bytes);
    CHECK(std::isfinite(plan.energy_j));
  }
}

void urgency_grows_with_the_score() {
  CHECK(urgency(10, 100, 0, 50) < urgency(10, 90, 0, 0));
  CHECK(urgency(10, 100, 1, 50) > urgency(10, 90, 1, 0));
  CHECK(urgency(1, 0, 0, 0) > urgency(1e9F, 1e-9F, 0, 0));
  CHECK(urgency(1, -2, 0, 0) > urgency(1, -1, 0, 0));
}

void bad_input_is_named() {
  const ProfileTable table(sample::spec());
  Solver solver(table.view(), Options{});
  std::vector<Task> tasks(1, Task{0, 0, 1, 0, NAN, 0, 0});
  try {
    solver.solve(tasks, {1000, 100, 1.0});
    CHECK(false);
  } catch (const BadInput& e) {
    CHECK_EQ(e.field(), "tasks[0].deadline_ms");
  }
}

}  // namespace

int main() {
  plans_fit_the_device(Policy::festina);
  plans_fit_the_device(Policy::paper);
  urgency_grows_with_the_score();
  bad_input_is_named();
}
