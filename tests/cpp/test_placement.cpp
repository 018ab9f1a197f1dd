#include <set>
#include <string>
#include <vector>

#include "check.hpp"
#include "core/placement/cluster_view.hpp"
#include "profile_table_sample.hpp"

// Placement's bookkeeping under many random changes: rows move when GPUs come and go, and must stay
// those of their GPUs. The decisions themselves are tested against brute force from Python.
namespace {

using namespace festina;
using namespace festina::placement;

// Reproducible small numbers.
class Dice {
 public:
  int below(int limit) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int>((state_ >> 33) % static_cast<std::uint64_t>(limit));
  }

 private:
  std::uint64_t state_ = 7;
};

Summary summary(Dice& dice, int models) {
  Summary s;
  s.clock_mhz = s.clock_target_mhz = 1000;
  s.sms_free = 100;
  s.kv_tokens_total = s.kv_tokens_free = 100'000;
  s.memory_free_bytes = 1 << 28;
  for (int model = 0; model < models; ++model) {
    const int running = dice.below(4);
    if (dice.below(2) == 0) {
      s.residents.push_back({model, Residency::ready, running, 0, 100.0 * running, 0.0, 50.0F});
    }
  }
  return s;
}

// Every answer names a GPU that is there, and agrees with a view that was made in one go.
void rows_follow_their_gpus(Policy policy) {
  constexpr int kModels = 3;
  const ProfileTable table(sample::spec(kModels));
  Options options;
  options.policy = policy;
  const auto fresh = [&] {
    ClusterView view({{"sample", table.view()}}, options);
    for (int m = 0; m < kModels; ++m) {
      const std::string name = "model-" + std::to_string(m);
      CHECK_EQ(view.add_model(name, name, {1000, 100}, 4096), m);
    }
    return view;
  };
  const auto add = [](ClusterView& view) {
    return view.add_gpu("gpu", "sample", 100, {500, 1000, 2000}, 1e9, {0, 1, 2});
  };
  ClusterView view = fresh();
  std::vector<Summary> held(16);
  std::set<int> present;
  Dice dice;
  for (int round = 0; round < 2000; ++round) {
    const int slot = dice.below(16);
    if (!present.contains(slot)) {
      const int added = add(view);
      held[static_cast<std::size_t>(added)] = summary(dice, kModels);
      view.update(added, held[static_cast<std::size_t>(added)]);
      present.insert(added);
    } else if (dice.below(4) == 0) {
      view.remove_gpu(slot);
      present.erase(slot);
    } else {
      held[static_cast<std::size_t>(slot)] = summary(dice, kModels);
      view.update(slot, held[static_cast<std::size_t>(slot)]);
    }
    if (present.empty() || round % 10 != 0) continue;
    ClusterView anew = fresh();
    for (int s = 0; s <= *present.rbegin(); ++s) {
      CHECK_EQ(add(anew), s);
      if (present.contains(s)) anew.update(s, held[static_cast<std::size_t>(s)]);
    }
    const Request request{dice.below(kModels), 200, 100, {1000, 100}};
    const Placement a = view.place(request, {});
    CHECK(present.contains(a.slot));
    CHECK_NEAR(a.energy_j, anew.place(request, {}).energy_j, policy == Policy::paper ? 0.03 : 1e-5);
  }
  CHECK_EQ(view.gpus(), static_cast<int>(present.size()));
}

void reservations_count_until_their_ticket_or_their_time() {
  const ProfileTable table(sample::spec());
  ClusterView view({{"sample", table.view()}}, Options{});
  const int model = view.add_model("m", "model-0", {1000, 100}, 4096);
  const int slot = view.add_gpu("gpu", "sample", 100, {}, 1e9, {model});
  CHECK_THROWS(view.reserve(slot, 1, model, 10, 10, 0.0), Refusal);  // no summary yet
  Dice dice;
  Summary s = summary(dice, 0);
  s.residents.push_back({model, Residency::ready, 1, 0, 100, 0, 50.0F});
  view.update(slot, s);
  for (std::uint64_t ticket = 0; ticket < 100; ++ticket) {
    view.reserve(slot, ticket, model, 10, 10, static_cast<double>(ticket));
  }
  CHECK_EQ(view.reserved(slot), 100);
  s.tickets = {3, 4, 5};
  view.update(slot, s);
  CHECK_EQ(view.reserved(slot), 97);
  CHECK_EQ(view.expire(2049.0), 47);
  CHECK_EQ(view.expire(1e9), 50);
  CHECK_EQ(view.reserved(slot), 0);
}

void the_least_value_is_found_at_any_place() {
  for (std::size_t n = 0; n < 70; ++n) {
    std::vector<float> values(n, kNever);
    CHECK_EQ(argmin(values.data(), n), n);
    for (std::size_t i = 0; i < n; ++i) {
      values.assign(n, 1.0F);
      values[i] = -2.0F;
      CHECK_EQ(argmin(values.data(), n), i);
    }
  }
}

}  // namespace

int main() {
  rows_follow_their_gpus(Policy::festina);
  rows_follow_their_gpus(Policy::paper);
  reservations_count_until_their_ticket_or_their_time();
  the_least_value_is_found_at_any_place();
}
