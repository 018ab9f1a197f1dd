#pragma once
#include <algorithm>
#include <cstddef>
#include <deque>
#include <numeric>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/dilu_profile.hpp"

// Dilu's instances: on which GPUs (arXiv 2503.05130, section 3.3), and how many (section 3.4.2).
namespace festina::simulator {

struct DiluSchedulerOptions {
  double requests_max = 1.0;  // sum of requests on a GPU, of its SMs
  double limits_max = 3;      // sum of limits
  double window = 40;         // samples, one a second
  double out_samples = 20;    // of the window above the capacity, before an instance is added
  double in_samples = 30;     // of the window below what one fewer serves, before one is given up
};

// Who runs where: by model, its GPUs.
class DiluInstances {
 public:
  DiluInstances(const Cluster& cluster, const DiluSchedulerOptions& options,
                std::vector<DiluQuota> quotas)
      : c_(cluster),
        options_(options),
        quotas_(std::move(quotas)),
        gpus_of_(quotas_.size()),
        samples_(quotas_.size()),
        arrived_(quotas_.size(), 0) {}

  const DiluQuota& quota(int model) const { return quotas_[at(model)]; }
  const std::vector<int>& gpus_of(int model) const { return gpus_of_[at(model)]; }
  bool empty(int gpu) const {
    return std::none_of(gpus_of_.begin(), gpus_of_.end(),
                        [gpu](const auto& gpus) { return contains(gpus, gpu); });
  }
  void add(int model, int gpu) { gpus_of_[at(model)].push_back(gpu); }
  void remove(int model, int gpu) { std::erase(gpus_of_[at(model)], gpu); }

  // The GPU in use that the instance fills best in both dimensions; a GPU that nobody uses only
  // where none has room. kNone: there is no room.
  int fit(int model) const {
    int best = kNone;
    double least = kNever;
    for (int i = 0; i < c_.gpus(); ++i) {
      if (contains(gpus_of(model), i)) continue;
      const Used used = used_with(model, i);
      if (used.requests > options_.requests_max || used.limits > options_.limits_max ||
          used.memory > 1) {
        continue;
      }
      constexpr double kUnused = 2;  // more than any leftover
      const double left = (empty(i) ? kUnused : 0) + (1 - used.requests) + (1 - used.memory);
      if (left < least) {
        least = left;
        best = i;
      }
    }
    return best;
  }

  void arrived(int model) { ++arrived_[at(model)]; }
  // Once a second.
  void sample() {
    for (std::size_t m = 0; m < samples_.size(); ++m) {
      samples_[m].push_back(arrived_[m]);
      if (static_cast<double>(samples_[m].size()) > options_.window) samples_[m].pop_front();
      arrived_[m] = 0;
    }
  }
  // Lazy scaling: vertical quotas take short bursts, instances follow what lasts.
  bool wants_more(int model) const {
    const double capacity = static_cast<double>(gpus_of(model).size()) * per_instance(model);
    return !gpus_of(model).empty() && above(model, capacity) > options_.out_samples;
  }
  bool wants_fewer(int model) const {
    const auto instances = static_cast<double>(gpus_of(model).size());
    if (instances < 2) return false;
    const auto known = static_cast<double>(samples_[at(model)].size());
    return known - above(model, (instances - 1) * per_instance(model)) > options_.in_samples;
  }
  // A new count starts a new window.
  void forget(int model) { samples_[at(model)].clear(); }

 private:
  struct Used {
    double requests = 0;  // shares of the GPU
    double limits = 0;
    double memory = 0;
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  static bool contains(const std::vector<int>& gpus, int gpu) {
    return std::find(gpus.begin(), gpus.end(), gpu) != gpus.end();
  }
  double per_instance(int model) const { return quota(model).requests_per_s; }
  double above(int model, double requests) const {
    const auto& window = samples_[at(model)];
    return static_cast<double>(
        std::count_if(window.begin(), window.end(), [requests](int n) { return n > requests; }));
  }

  Used used_with(int model, int gpu) const {
    Used used;
    const double total_sms = c_.table().sms(c_.full_rung());
    for (std::size_t m = 0; m < quotas_.size(); ++m) {
      const int other = static_cast<int>(m);
      if (other != model && !contains(gpus_of_[m], gpu)) continue;
      used.requests += c_.table().sms(quotas_[m].request) / total_sms;
      used.limits += c_.table().sms(quotas_[m].limit) / total_sms;
      used.memory += quotas_[m].memory_bytes / c_.device().memory_bytes;
    }
    return used;
  }

  const Cluster& c_;
  DiluSchedulerOptions options_;
  std::vector<DiluQuota> quotas_;
  std::vector<std::vector<int>> gpus_of_;
  std::vector<std::deque<int>> samples_;  // requests in each of the last seconds
  std::vector<int> arrived_;              // in this second
};

}  // namespace festina::simulator
