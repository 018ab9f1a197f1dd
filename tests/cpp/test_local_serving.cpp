// What the local rule promises a device that serves.
#include <vector>

#include "check.hpp"
#include "core/local/situation.hpp"

namespace {

using namespace festina::local;

Options serving() {
  Options o;
  o.margin = 0;
  o.batch_max = 4;
  o.chunk_tokens = 64;
  o.chunk_min_tokens = 16;
  o.chunk_unit_tokens = 1;
  o.by_deadline = o.least_chunk = o.turns = true;
  return o;
}

// 10 ms a step, 1 ms a prompt token.
ModelCost cost() { return {nullptr, 0, 0, 0, {10, 1, 0, 0, 0}}; }
Decode decode(int id, double last_ms, double tbt_ms = 100, double pace = 1) {
  return {id, 100, last_ms, tbt_ms, pace, false};
}
Prompt prompt(int id, int tokens, double objective_ms, double memory = 0) {
  return {id, tokens, 0, 0, objective_ms, false, memory};
}

void decodes_beyond_a_batch_wait_for_the_first_ones() {
  Situation s(serving());
  s.add_lane(cost(), 0, false, -kNever);
  for (int i = 0; i < 6; ++i) s.add(decode(i, 0));
  Choice wait = s.choose(1, 0);  // two batches, both due at 100, 10 each
  CHECK_EQ(wait.lane, kNone);
  CHECK_NEAR(wait.wait_until_ms, 80.0, 1e-9);
  const Choice now = s.choose(1, 80);
  CHECK_EQ(now.decodes, 4);
  CHECK_EQ(s.decodes(now)[0].id, 0);
}

void the_outgrown_go_first() {
  Situation s(serving());
  s.add_lane(cost(), 0, false, -kNever);
  for (int i = 0; i < 6; ++i) {
    Decode d = decode(i, i);
    d.outgrown = i == 5;
    s.add(d);
  }
  const Choice now = s.choose(1, 95);
  CHECK_EQ(now.decodes, 4);
  CHECK_EQ(s.decodes(now)[0].id, 5);
  CHECK_EQ(s.decodes(now)[1].id, 0);
}

void a_request_without_slack_sets_the_pace() {
  Situation s(serving());
  s.add_lane(cost(), 0, false, -kNever);
  s.add(decode(0, 0));
  CHECK_NEAR(s.choose(1, 0).wait_until_ms, 90.0, 1e-9);
  s.add(decode(1, 0, 100, 0.5));
  CHECK_NEAR(s.choose(1, 0).wait_until_ms, 40.0, 1e-9);
  s.add(decode(2, 0, 100, 0));
  CHECK_EQ(s.choose(1, 0).decodes, 3);
}

void decodes_do_not_take_their_time_while_prompts_wait_for_their_memory() {
  Situation s(serving());
  s.add_lane(cost(), 5, false, -kNever);
  s.add(decode(0, 0));
  s.add(prompt(0, 10, 1000, 6));
  CHECK_EQ(s.choose(1, 0).decodes, 1);
}

void nobody_is_let_in_before_one_that_is_late() {
  Situation s(serving());
  s.add_lane(cost(), 5, false, -kNever);
  s.add(prompt(0, 10, 100, 6));
  s.add(prompt(1, 10, 1000, 1));
  const Choice before = s.choose(1, 50);
  CHECK_EQ(before.chunks.size(), std::size_t{1});
  CHECK_EQ(before.chunks[0].id, 1);
  s.add(prompt(2, 10, 1000, 1));
  const Choice after = s.choose(1, 150);  // the late one's deadline has rolled on to 200
  CHECK_EQ(after.lane, kNone);
  CHECK_EQ(after.wait_until_ms, kNever);
}

void one_may_go_ahead_alone_whatever_it_needs() {
  Situation s(serving());
  s.add_lane(cost(), 5, true, -kNever);
  s.add(prompt(0, 10, 100, 60));
  s.add(prompt(1, 10, 1000, 1));
  const Choice c = s.choose(1, 0);
  CHECK_EQ(c.chunks.size(), std::size_t{1});
  CHECK_EQ(c.chunks[0].id, 0);
}

void prompts_take_the_room_that_decodes_leave_in_the_batch() {
  Situation s(serving());
  s.add_lane(cost(), 100, false, -kNever);
  for (int i = 0; i < 3; ++i) s.add(decode(i, 0, 1000));
  for (int i = 0; i < 3; ++i) s.add(prompt(i, 5, 5000));
  const Choice c = s.choose(1, 0);
  CHECK_EQ(c.decodes, 3);
  CHECK_EQ(c.chunks.size(), std::size_t{1});
}

void a_prompt_at_risk_gets_the_least_chunk_from_a_full_batch() {
  Situation s(serving());
  s.add_lane(cost(), 100, false, -kNever);
  for (int i = 0; i < 4; ++i) s.add(decode(i, 0, 25));
  s.add(prompt(0, 200, 1000));
  const Choice calm = s.choose(1, 0);  // a full batch runs early to make room
  CHECK_EQ(calm.decodes, 4);
  CHECK(calm.chunks.empty());
  const Choice risk = s.choose(1, 900);
  CHECK_EQ(risk.decodes, 3);
  CHECK_EQ(risk.chunks.size(), std::size_t{1});
  CHECK_EQ(risk.chunks[0].tokens, 16);
}

void models_take_turns_unless_somebody_becomes_late() {
  Situation s(serving());
  s.add_lane(cost(), 100, true, 50);
  s.add(prompt(0, 20, 1000));
  s.add_lane(cost(), 100, true, 20);
  s.add(prompt(1, 20, 2000));
  CHECK_EQ(s.choose(1, 60).lane, 1);   // longest without a step
  CHECK_EQ(s.choose(1, 955).lane, 0);  // must start by 970
}

void lanes_that_run_side_by_side_do_not_wait_for_each_other() {
  Situation s(serving());
  for (int i = 0; i < 2; ++i) {
    s.add_lane(cost(), 0, false, -kNever);
    s.add(decode(i, 0));
  }
  CHECK_NEAR(s.choose(1, 0).wait_until_ms, 80.0, 1e-9);
  CHECK_NEAR(s.choose(2, 0).wait_until_ms, 90.0, 1e-9);
}

void chunks_end_before_the_next_decode_of_any_model_must_start() {
  Situation s(serving());
  s.add_lane(cost(), 0, false, -kNever);
  s.add(decode(0, 0, 60));
  s.add_lane(cost(), 100, true, -kNever);
  s.add(prompt(0, 200, 1000));
  const Choice c = s.choose(1, 0);  // the decode starts by 50: 40 tokens after the fixed 10 ms
  CHECK_EQ(c.lane, 1);
  CHECK(c.chunks[0].tokens <= 40 && c.chunks[0].tokens >= 38);
  const Choice beside = s.choose(2, 0);
  CHECK_EQ(beside.chunks[0].tokens, 64);
}

}  // namespace

int main() {
  decodes_beyond_a_batch_wait_for_the_first_ones();
  the_outgrown_go_first();
  a_request_without_slack_sets_the_pace();
  decodes_do_not_take_their_time_while_prompts_wait_for_their_memory();
  nobody_is_let_in_before_one_that_is_late();
  one_may_go_ahead_alone_whatever_it_needs();
  prompts_take_the_room_that_decodes_leave_in_the_batch();
  a_prompt_at_risk_gets_the_least_chunk_from_a_full_batch();
  models_take_turns_unless_somebody_becomes_late();
  lanes_that_run_side_by_side_do_not_wait_for_each_other();
  chunks_end_before_the_next_decode_of_any_model_must_start();
}
