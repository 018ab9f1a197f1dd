#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "core/clock/planner.hpp"
#include "core/consolidation/types.hpp"

// Which GPUs are needed at all (DESIGN 4.3): a GPU is emptied and parked when the power saved over
// the time that the load is expected to stay low is worth more than the moves, the reloads, the
// wake and the risk; and woken before its capacity is missed.
namespace festina::consolidation {

// `World` tells what a GPU costs: `cost(gpu)` as `clock::Planner` wants it; `profile(gpu, model)`,
// the model's place in that cost, below 0 where it cannot run; `parked_w(gpu)`; `wake_ms(gpu)` and
// `wake_j(gpu)`; and `byte_j(gpu)`, of a byte that is moved or loaded. Keeps memory between calls;
// used by one thread.
template <class World>
class Festina {
 public:
  Festina(const Options& options, clock::Planner& planner) : options_(options), clock_(planner) {}

  // The drains that gain most together, the best first; none where nothing gains. `growth_per_ms`:
  // by which share of itself the load grows.
  std::vector<Drain> drains(const World& world, std::span<const GpuState> gpus, double now_ms,
                            double growth_per_ms = 0) {
    begin(world, gpus, now_ms);
    valley_ms_ = valley_ms(growth_per_ms);
    std::vector<Drain> found;
    for (const int g : candidates()) {
      if (std::optional<Drain> d = consider(g)) found.push_back(std::move(*d));
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Drain& a, const Drain& b) { return a.gain_j > b.gain_j; });
    std::vector<Drain> chosen;
    for (const Drain& d : found) {
      if (static_cast<int>(chosen.size()) >= options_.drains) break;
      if (chosen.empty()) {
        take(chosen.emplace_back(d));
      } else if (std::optional<Drain> again = consider(d.gpu)) {
        take(chosen.emplace_back(std::move(*again)));
      }
    }
    return chosen;
  }

  // The load of late is more than an awake GPU can keep in time: another one will be needed.
  std::optional<Wake> wake_ahead(const World& world, std::span<const GpuState> gpus,
                                 double now_ms) {
    begin(world, gpus, now_ms);
    for (int g = 0; g < count(); ++g) {
      if (!at(g).awake || plan_of(g).fits) continue;
      if (options_.spread && can_give_away(g)) continue;
      for (int k = 0; k < count(); ++k) {
        if (at(k).parked && at(k).settled) return Wake{k, g};
      }
    }
    return std::nullopt;
  }

 private:
  using Guests = std::vector<const Resident*>;

  int count() const { return static_cast<int>(gpus_.size()); }
  const GpuState& at(int g) const { return gpus_[static_cast<std::size_t>(g)]; }
  template <class T>
  static T& of(std::vector<T>& by_gpu, int g) {
    return by_gpu[static_cast<std::size_t>(g)];
  }

  void begin(const World& world, std::span<const GpuState> gpus, double now_ms) {
    world_ = &world;
    gpus_ = gpus;
    now_ms_ = now_ms;
    const std::size_t n = gpus.size();
    plans_.assign(n, std::nullopt);
    guests_.assign(n, {});
    claimed_.assign(n, 0.0);
    closed_.assign(n, false);
  }

  bool open(int g) const { return at(g).open && !closed_[static_cast<std::size_t>(g)]; }

  // GPUs that could be emptied, those with the least to move first if there are many.
  std::vector<int> candidates() const {
    std::vector<int> found;
    for (int g = 0; g < count(); ++g) {
      const GpuState& s = at(g);
      if (!s.open || s.loading || !s.settled) continue;
      if (s.requests > 0 && !options_.consolidation) continue;
      found.push_back(g);
    }
    const auto most = static_cast<std::size_t>(options_.examined);
    if (found.size() <= most) return found;
    std::vector<double> busy_bytes(gpus_.size(), 0.0);
    for (const int g : found) {
      for (const Resident& r : at(g).residents) {
        if (!r.idle) busy_bytes[static_cast<std::size_t>(g)] += r.weight_bytes + r.cache_bytes;
      }
    }
    std::stable_sort(found.begin(), found.end(), [&busy_bytes](int a, int b) {
      return busy_bytes[static_cast<std::size_t>(a)] < busy_bytes[static_cast<std::size_t>(b)];
    });
    found.resize(most);
    return found;
  }

  // --- what a GPU draws --------------------------------------------------------------------------
  clock::GpuLoad load_of(int g, const Guests& more) const {
    clock::GpuLoad load;
    const auto add = [&](const Resident& r) {
      load.models.push_back(r.load);
      load.models.back().model = world_->profile(g, r.model);
      for (const clock::Waiting& w : r.waiting) {
        load.waiting.push_back(w);
        load.waiting.back().model = world_->profile(g, r.model);
      }
    };
    for (const Resident& r : at(g).residents) add(r);
    for (const Resident* r : more) add(*r);
    return load;
  }
  clock::Plan plan(int g, const Guests& more) {
    return clock_.plan(world_->cost(g), load_of(g, more), at(g).clock, now_ms_);
  }
  // With the guests of drains that are chosen already.
  const clock::Plan& plan_of(int g) {
    std::optional<clock::Plan>& known = of(plans_, g);
    if (!known) known = plan(g, of(guests_, g));
    return *known;
  }

  // Share of time that a model takes at the highest clock, and how much its prompts make it vary.
  struct Share {
    double mean = 0;
    double variance = 0;
  };
  Share share(int g, const Resident& r) const {
    const auto cost = world_->cost(g);
    const int top = cost.clocks() - 1, model = world_->profile(g, r.model);
    Share s;
    if (r.load.running > 0) {
      const local::StepWork w{r.load.running, r.load.context_mean, 0, 0};
      s.mean += cost.step(model, w, top).latency_ms / r.load.tbt_ms;
    }
    if (r.load.prompt_tokens >= 1) {
      const local::StepWork w{0, 0, static_cast<int>(r.load.prompt_tokens), 0};
      const double ms = cost.step(model, w, top).latency_ms;
      s.mean += r.load.prompts_per_ms * ms;
      s.variance = r.load.prompts_per_ms * ms * ms / clock_.options().memory_ms;
    }
    return s;
  }

  // How long the load stays what it is, or fits if it grows on like this.
  double valley_ms(double growth_per_ms) const {
    if (growth_per_ms <= 0) return options_.horizon_ms;
    double room = -clock_.options().utilisation;  // without the one that is parked
    double used = 0;
    for (int g = 0; g < count(); ++g) {
      if (!at(g).open) continue;
      room += clock_.options().utilisation;
      for (const Resident& r : at(g).residents) used += share(g, r).mean;
    }
    if (used <= 0) return options_.horizon_ms;
    return std::clamp((room - used) / (used * growth_per_ms), 0.0, options_.horizon_ms);
  }

  // --- what it would gain to empty one -----------------------------------------------------------
  std::optional<Drain> consider(int g) {
    if (!open(g) || !of(guests_, g).empty()) return std::nullopt;
    Drain drain{g, 0, valley_ms_, world_->wake_j(g), 0, 0, 0, {}};
    added_.assign(gpus_.size(), {});
    std::vector<double> claimed = claimed_;
    double moved_bytes = 0;
    for (const Resident& r : at(g).residents) {
      const double expected = r.load.prompts_per_ms * options_.horizon_ms;
      if (r.idle && (expected < options_.rare || held_elsewhere(g, r.model))) continue;
      const int to = target(g, r, claimed);
      if (to == kNone) return std::nullopt;
      const double bytes = (holds(to, r.model) ? 0 : r.weight_bytes) + r.cache_bytes;
      of(claimed, to) += bytes;
      moved_bytes += bytes;
      of(added_, to).push_back(&r);
      drain.moves.push_back({r.model, to});
    }
    if (!saves(drain)) return std::nullopt;
    drain.moves_j = 2 * moved_bytes * world_->byte_j(g);  // there, and some time back
    if (options_.risk) drain.risk_j = risk_j(drain);
    drain.gain_j =
        drain.saved_w * drain.valley_ms / 1000.0 - drain.wake_j - drain.moves_j - drain.risk_j;
    if (drain.gain_j <= 0) return std::nullopt;
    return drain;
  }

  // Whether the others stay in time with what they take over, and enough is saved.
  bool saves(Drain& drain) {
    drain.saved_w = plan_of(drain.gpu).power_w - world_->parked_w(drain.gpu);
    bool others = false;
    for (int i = 0; i < count(); ++i) {
      others = others || (open(i) && i != drain.gpu);
      if (of(added_, i).empty()) continue;
      const clock::Plan after = plan(i, joined(i, nullptr));
      if (!after.fits) return false;
      drain.saved_w -= after.power_w - plan_of(i).power_w;
    }
    return others && drain.saved_w >= options_.least_w;
  }

  // What a GPU takes over in all, and one more.
  Guests joined(int g, const Resident* more) {
    Guests all = of(guests_, g);
    all.insert(all.end(), of(added_, g).begin(), of(added_, g).end());
    if (more != nullptr) all.push_back(more);
    return all;
  }

  bool holds(int g, int model) const {
    const auto& residents = at(g).residents;
    return std::any_of(residents.begin(), residents.end(),
                       [model](const Resident& r) { return r.held && r.model == model; });
  }
  bool held_elsewhere(int g, int model) const {
    for (int i = 0; i < count(); ++i) {
      if (i != g && open(i) && holds(i, model)) return true;
    }
    return false;
  }

  // Where the model may go: of the GPUs where its weights are, or else the least memory is left
  // after it, the one on which it draws least, everything in time: memory and time are packed
  // together.
  int target(int g, const Resident& r, const std::vector<double>& claimed) {
    fitting_.clear();
    for (int i = 0; i < count(); ++i) {
      if (i == g || !open(i) || world_->profile(i, r.model) < 0) continue;
      const bool held = holds(i, r.model);
      const double need = (held ? 0 : r.weight_bytes) + r.cache_bytes;
      const double left = at(i).free_bytes - claimed[static_cast<std::size_t>(i)] - need;
      if (left >= 0) fitting_.push_back({held ? -1 : left, i});
    }
    const auto most = std::min(static_cast<std::size_t>(options_.targets), fitting_.size());
    std::partial_sort(fitting_.begin(), fitting_.begin() + static_cast<std::ptrdiff_t>(most),
                      fitting_.end());
    if (most <= 1) return most == 0 ? kNone : fitting_.front().gpu;
    int best = kNone;
    double least_w = kNever;
    for (std::size_t k = 0; k < most; ++k) {
      const int i = fitting_[k].gpu;
      const clock::Plan after = plan(i, joined(i, &r));
      const Guests before = joined(i, nullptr);
      const double before_w =
          before.size() == of(guests_, i).size() ? plan_of(i).power_w : plan(i, before).power_w;
      if (!after.fits || after.power_w - before_w >= least_w) continue;
      least_w = after.power_w - before_w;
      best = i;
    }
    return best;
  }

  // If the load rises above what the others can do, all of it is undone at once, and what comes
  // until then is late. How likely that is: the load of late is a mean over few prompts.
  double risk_j(const Drain& drain) {
    double sum = 0;
    for (int i = 0; i < count(); ++i) {
      if (of(added_, i).empty()) continue;
      Share all;
      double per_ms = 0;
      const auto add = [&](const Resident& r) {
        const Share s = share(i, r);
        all.mean += s.mean;
        all.variance += s.variance;
        per_ms += r.load.prompts_per_ms;
      };
      for (const Resident& r : at(i).residents) add(r);
      for (const Resident* r : joined(i, nullptr)) add(*r);
      const double room = std::max(0.0, clock_.options().utilisation - all.mean);
      if (all.variance <= 0) continue;
      const double likely = std::exp(-room * room / (2 * all.variance));
      const double late = per_ms * world_->wake_ms(drain.gpu);
      sum += likely * (drain.wake_j + drain.moves_j + late * options_.late_j);
    }
    return sum;
  }

  // From now on the drain counts as done.
  void take(const Drain& drain) {
    closed_[static_cast<std::size_t>(drain.gpu)] = true;
    for (const Move& move : drain.moves) {
      for (const Resident& r : at(drain.gpu).residents) {
        if (r.model != move.model) continue;
        const bool held = holds(move.to, r.model);
        of(claimed_, move.to) += (held ? 0 : r.weight_bytes) + r.cache_bytes;
        of(guests_, move.to).push_back(&r);
        of(plans_, move.to).reset();
      }
    }
  }

  // Another awake GPU could take one of its models over, and stay in time.
  bool can_give_away(int g) {
    added_.assign(gpus_.size(), {});
    for (const Resident& r : at(g).residents) {
      if (r.load.running == 0 && r.load.prompt_tokens < 1) continue;
      const int to = target(g, r, claimed_);
      if (to != kNone && plan(to, joined(to, &r)).fits) return true;
    }
    return false;
  }

  struct Fit {
    double rank;
    int gpu;
    bool operator<(const Fit& other) const {
      return rank != other.rank ? rank < other.rank : gpu < other.gpu;
    }
  };

  Options options_;
  clock::Planner& clock_;
  const World* world_ = nullptr;
  std::span<const GpuState> gpus_;
  double now_ms_ = 0;
  double valley_ms_ = 0;
  std::vector<std::optional<clock::Plan>> plans_;  // by GPU
  std::vector<Guests> guests_;                     // of drains that are chosen
  std::vector<Guests> added_;                      // of the one that is looked at
  std::vector<double> claimed_;                    // memory that guests take
  std::vector<bool> closed_;                       // by drains that are chosen
  std::vector<Fit> fitting_;                       // kept between calls
};

}  // namespace festina::consolidation
