#include <algorithm>
#include <cstddef>
#include <set>
#include <span>
#include <vector>

#include "check.hpp"
#include "local_sample.hpp"

// Which prompts run, and how much of them.
namespace {

using namespace sample;

// Lanes with decodes and prompts of all kinds. The spans point into `prompts`.
std::vector<PlainLane> random_lanes(Draws& random, std::vector<std::vector<Prompt>>& prompts) {
  std::vector<PlainLane> lanes;
  prompts.assign(static_cast<std::size_t>(1 + random.below(4)), {});
  int id = 0;
  for (auto& queue : prompts) {
    for (int i = random.below(5); i > 0; --i) {
      queue.push_back({id++, 1 + random.below(3000), random.chance(50) ? random.below(8000) : 0,
                       random.between(0, 900), random.between(100, 2000), random.chance(30),
                       random.between(1, 100)});
    }
    lanes.push_back({static_cast<int>(lanes.size()), random.chance(70) ? 1 + random.below(64) : 0,
                     random.between(10, 4000), random.between(1000, 1200), random.between(50, 150),
                     queue});
  }
  return lanes;
}

// First start of the decodes that a choice leaves for later.
double latest_start_of_others(const Options& o, std::span<const PlainLane> lanes,
                              const Choice& choice) {
  std::vector<DecodeGroup> groups;
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    const bool along = static_cast<int>(i) == choice.lane && choice.decodes > 0;
    if (along || lanes[i].decodes == 0) continue;
    groups.push_back({static_cast<int>(i), due_ms(o, lanes[i]), decode_ms(o, lanes[i])});
  }
  return best_first_start(groups);
}

double step_ms(const Options& o, const PlainLane& lane, const Choice& choice) {
  StepWork w{choice.decodes, lane.context_mean, 0, 0};
  double cached = 0;
  for (const Chunk& c : choice.chunks) {
    w.tokens += c.tokens;
    cached += static_cast<double>(c.cached_tokens) * c.tokens;
  }
  w.cached_mean = cached / w.tokens;
  const Cost cost;
  return cost.latency_ms(lane.model, w) * (1 + o.sigmas * cost.spread(lane.model, w));
}

void chunks_make_no_known_decode_late() {
  Draws random(4);
  int with_chunks = 0, cut = 0;
  for (int round = 0; round < 3000; ++round) {
    Options options;
    options.mix = random.chance(70);
    Chooser chooser(options);
    std::vector<std::vector<Prompt>> prompts;
    const std::vector<PlainLane> lanes = random_lanes(random, prompts);
    const double now_ms = random.between(800, 1100);
    const Choice choice = choose(chooser, options, lanes, 150, false, now_ms);
    if (choice.chunks.empty()) continue;
    const PlainLane& lane = lanes[static_cast<std::size_t>(choice.lane)];
    CHECK_EQ(choice.decodes, options.mix ? lane.decodes : 0);
    const bool decodes = std::any_of(lanes.begin(), lanes.end(), [](auto& l) { return l.decodes; });
    if (!decodes) continue;  // the whole chunk runs, however long it takes
    const double end_ms = now_ms + step_ms(options, lane, choice);
    if (choice.decodes > 0) CHECK(end_ms <= due_ms(options, lane) + 1e-9);
    CHECK(end_ms <= latest_start_of_others(options, lanes, choice) + 1e-9);
    ++with_chunks;
    const Chunk& last = choice.chunks.back();
    for (const Prompt& p : lane.prompts) cut += p.id == last.id && last.tokens < p.pending_tokens;
  }
  CHECK(with_chunks > 500);
  CHECK(cut > 50);
}

void chunks_are_parts_of_prompts_that_fit_memory() {
  Draws random(5);
  int passed_over = 0;
  for (int round = 0; round < 3000; ++round) {
    const Options options;
    Chooser chooser(options);
    std::vector<std::vector<Prompt>> prompts;
    const std::vector<PlainLane> lanes = random_lanes(random, prompts);
    const double free_bytes = random.between(0, 200);
    const Choice choice = choose(chooser, options, lanes, free_bytes, false, 1000);
    if (choice.lane == kNone) continue;
    double needed_bytes = 0;
    int tokens = 0;
    std::set<int> seen;
    for (const Chunk& c : choice.chunks) {
      const auto& queue = prompts[static_cast<std::size_t>(choice.lane)];
      const auto p =
          std::find_if(queue.begin(), queue.end(), [&c](auto& q) { return q.id == c.id; });
      CHECK(p != queue.end());
      CHECK(seen.insert(c.id).second);
      CHECK(c.tokens >= 1 && c.tokens <= p->pending_tokens);
      CHECK_EQ(c.cached_tokens, p->cached_tokens);
      tokens += c.tokens;
      if (!p->admitted) needed_bytes += p->memory;
    }
    CHECK(needed_bytes <= free_bytes);
    CHECK(tokens <= options.chunk_tokens);
    for (const auto& queue : prompts) {
      for (const Prompt& p : queue) passed_over += !p.admitted && p.memory > free_bytes;
    }
  }
  CHECK(passed_over > 500);
}

void a_prompt_too_large_for_memory_goes_ahead_only_where_nobody_is_in_the_way() {
  const Options options;
  Chooser chooser(options);
  const std::vector<Prompt> prompts{{7, 500, 0, 0, 100, false, 900},
                                    {8, 50, 0, 0, 1000, false, 90}};
  const std::vector<PlainLane> lanes{{0, 0, 0, kNever, kNever, prompts}};
  const Choice passed = choose(chooser, options, lanes, 100, false, 0);
  CHECK_EQ(passed.chunks.size(), 1U);
  CHECK_EQ(passed.chunks[0].id, 8);
  const Choice alone = choose(chooser, options, lanes, 100, true, 0);
  CHECK_EQ(alone.chunks.size(), 1U);
  CHECK_EQ(alone.chunks[0].id, 7);
  CHECK_EQ(choose(chooser, options, lanes, 10, false, 0).lane, kNone);
}

// Memory that has overflown keeps prompts that hold theirs already from nothing.
void admitted_prompts_need_no_free_memory() {
  const Options options;
  Chooser chooser(options);
  const std::vector<Prompt> prompts{{1, 500, 100, 0, 100, true, 50},
                                    {2, 300, 100, 0, 200, true, 50}};
  const std::vector<PlainLane> lanes{{0, 0, 0, kNever, kNever, prompts}};
  CHECK_EQ(choose(chooser, options, lanes, -10, false, 0).chunks.size(), 2U);
}

// A long prompt whose deadline comes later does not hold up a short one in a hurry.
void the_prompt_that_must_start_first_goes_first() {
  const Options options;
  Chooser chooser(options);
  const std::vector<Prompt> slow{{1, 1000, 0, 0, 5000, false, 1}};
  const std::vector<Prompt> hurried{{2, 100, 0, 50, 200, false, 1}};
  const std::vector<PlainLane> lanes{{0, 0, 0, kNever, kNever, slow},
                                     {1, 0, 0, kNever, kNever, hurried}};
  const Choice choice = choose(chooser, options, lanes, 100, false, 60);
  CHECK_EQ(choice.lane, 1);
  CHECK_EQ(choice.chunks[0].tokens, 100);
}

// Where a chunk worth the step does not fit, the decodes that are in its way run early.
void decodes_make_room_for_a_prompt() {
  const Options options;
  Chooser chooser(options);
  const std::vector<Prompt> prompts{{1, 1000, 0, 0, 50, false, 1}};
  const std::vector<PlainLane> lanes{{0, 0, 0, kNever, kNever, prompts}, {1, 8, 100, 5, 100, {}}};
  const Choice choice = choose(chooser, options, lanes, 100, false, 0);
  CHECK_EQ(choice.lane, 1);
  CHECK_EQ(choice.decodes, 8);
  CHECK(choice.chunks.empty());
}

}  // namespace

int main() {
  chunks_make_no_known_decode_late();
  chunks_are_parts_of_prompts_that_fit_memory();
  a_prompt_too_large_for_memory_goes_ahead_only_where_nobody_is_in_the_way();
  admitted_prompts_need_no_free_memory();
  the_prompt_that_must_start_first_goes_first();
  decodes_make_room_for_a_prompt();
}
