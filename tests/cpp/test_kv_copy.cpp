// The body of the copy kernel as host code, thread by thread, against the host path and against a
// plain loop; and what happens to tables before any path.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "cuda/kv_copy/host.hpp"
#include "cuda/kv_copy/table.hpp"

namespace {

using festina::kv_copy::Descriptor;
using festina::kv_copy::Word;

using Pool = std::vector<Word>;  // aligned as pools are

std::span<std::byte> bytes(Pool& pool) { return std::as_writable_bytes(std::span(pool)); }
bool same(const Pool& a, const Pool& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(Word)) == 0;
}

Pool random_pool(std::size_t words, std::mt19937_64& random) {
  Pool pool(words);
  for (Word& word : pool) word = {random(), random()};
  return pool;
}

// Cuts both pools into the same pieces and takes some of them from anywhere to anywhere.
std::vector<Descriptor> random_runs(std::size_t words, std::size_t piece_max,
                                    std::mt19937_64& random) {
  std::vector<Descriptor> cuts;
  for (std::size_t start = 0; start < words;) {
    const std::size_t size = std::min<std::size_t>(1 + random() % piece_max, words - start);
    cuts.push_back({0, start * sizeof(Word), size * sizeof(Word)});
    start += size;
  }
  std::vector<Descriptor> runs;
  for (Descriptor run : cuts) {
    if (random() % 4 == 0) continue;
    run.src_offset = random() % 2 == 0
                         ? run.dst_offset
                         : random() % (words - run.size / sizeof(Word) + 1) * sizeof(Word);
    runs.push_back(run);
  }
  std::shuffle(runs.begin(), runs.end(), random);
  return runs;
}

Pool plainly(Pool src, Pool dst, const std::vector<Descriptor>& runs) {
  for (const Descriptor& run : runs) {
    for (std::uint64_t i = 0; i < run.size; ++i) {
      bytes(dst)[run.dst_offset + i] = bytes(src)[run.src_offset + i];
    }
  }
  return dst;
}

template <std::uint32_t N>
void by_threads(Pool& src, Pool& dst, std::span<const Descriptor> runs, std::uint32_t lanes,
                std::uint32_t threads) {
  festina::kv_copy::Table<N> table{};
  table.src = reinterpret_cast<std::uintptr_t>(src.data());
  table.dst = reinterpret_cast<std::uintptr_t>(dst.data());
  table.count = static_cast<std::uint32_t>(runs.size());
  table.lanes = lanes;
  std::copy(runs.begin(), runs.end(), table.runs);
  for (std::uint32_t thread = 0; thread < threads; ++thread) {
    festina::kv_copy::copy_table(table, thread, threads);
  }
}

void threads_together_copy_every_run() {
  std::mt19937_64 random(1);
  for (int round = 0; round < 40; ++round) {
    const std::size_t words = 1 + random() % 3000;
    Pool src = random_pool(words, random);
    const Pool before = random_pool(words, random);
    const auto runs = random_runs(words, 1 + random() % 700, random);
    const auto merged = festina::kv_copy::merge(runs);
    const Pool expected = plainly(src, before, runs);
    for (const std::uint32_t lanes : {32U, 256U}) {
      for (const std::uint32_t blocks : {1U, 3U}) {
        Pool dst = before;
        const std::span<const Descriptor> all = merged;
        for (std::size_t start = 0; start < all.size(); start += 32) {
          const auto part = all.subspan(start, std::min<std::size_t>(32, all.size() - start));
          by_threads<32>(src, dst, part, lanes, 256 * blocks);
        }
        CHECK(same(dst, expected));
      }
    }
    Pool dst = before;
    festina::kv_copy::copy_host(bytes(src), bytes(dst), runs);
    CHECK(same(dst, expected));
  }
}

void a_full_long_table_is_copied() {
  constexpr std::uint32_t count = festina::kv_copy::long_table;
  std::mt19937_64 random(2);
  Pool src = random_pool(2 * count, random);
  Pool dst = random_pool(2 * count, random);
  std::vector<Descriptor> runs;
  for (std::uint64_t i = 0; i < count; ++i) {
    runs.push_back({i * 32, (count - 1 - i) * 32, 32});
  }
  const Pool expected = plainly(src, dst, runs);
  by_threads<count>(src, dst, runs, 32, 512);
  CHECK(same(dst, expected));
}

// Large enough to go past the caches, with runs that are no multiple of a cache line.
void a_large_host_copy_is_exact() {
  std::mt19937_64 random(3);
  const std::size_t words = festina::kv_copy::streamed_min / sizeof(Word) * 2;
  Pool src = random_pool(words, random);
  const Pool before = random_pool(words, random);
  const auto runs = random_runs(words, 1500, random);
  std::uint64_t total = 0;
  for (const Descriptor& run : runs) total += run.size;
  CHECK(total >= festina::kv_copy::streamed_min);
  Pool dst = before;
  festina::kv_copy::copy_host(bytes(src), bytes(dst), runs);
  CHECK(same(dst, plainly(src, before, runs)));
}

void runs_merge_only_where_both_sides_go_on() {
  const std::vector<Descriptor> runs = {{0, 64, 16}, {16, 80, 16}, {32, 128, 16}, {64, 144, 16}};
  const auto merged = festina::kv_copy::merge(runs);
  CHECK_EQ(merged.size(), std::size_t{3});
  CHECK_EQ(merged[0].size, std::uint64_t{32});
  CHECK_EQ(merged[1].src_offset, std::uint64_t{32});
  CHECK_EQ(merged[2].src_offset, std::uint64_t{64});
}

void runs_merge_wherever_in_the_table_they_stand() {
  const std::vector<Descriptor> runs = {{32, 96, 16}, {0, 64, 16}, {48, 112, 32}, {16, 80, 16}};
  const auto merged = festina::kv_copy::merge(runs);
  CHECK_EQ(merged.size(), std::size_t{1});
  CHECK_EQ(merged[0].src_offset, std::uint64_t{0});
  CHECK_EQ(merged[0].dst_offset, std::uint64_t{64});
  CHECK_EQ(merged[0].size, std::uint64_t{80});
}

void large_tables_are_sorted_by_offsets_of_any_size() {
  std::mt19937_64 random(4);
  for (const unsigned bits : {5U, 13U, 37U, 63U}) {
    std::vector<Descriptor> runs;
    for (std::uint64_t i = 0; i < 3000; ++i) {
      runs.push_back({random() >> (64U - bits) & ~std::uint64_t{15}, i * 64, 16});
    }
    auto expected = runs;
    std::stable_sort(
        expected.begin(), expected.end(),
        [](const Descriptor& a, const Descriptor& b) { return a.src_offset < b.src_offset; });
    festina::kv_copy::sort_by_source(runs);
    for (std::size_t i = 0; i < runs.size(); ++i) {
      CHECK_EQ(runs[i].src_offset, expected[i].src_offset);
      CHECK_EQ(runs[i].dst_offset, expected[i].dst_offset);
    }
  }
}

void long_runs_are_split_without_a_gap() {
  const auto pieces =
      festina::kv_copy::split(std::vector<Descriptor>{{16, 0, 80}, {256, 96, 32}}, 32);
  CHECK_EQ(pieces.size(), std::size_t{4});
  CHECK_EQ(pieces[2].src_offset, std::uint64_t{80});
  CHECK_EQ(pieces[2].dst_offset, std::uint64_t{64});
  CHECK_EQ(pieces[2].size, std::uint64_t{16});
  CHECK_EQ(pieces[3].size, std::uint64_t{32});
}

}  // namespace

int main() {
  threads_together_copy_every_run();
  a_full_long_table_is_copied();
  a_large_host_copy_is_exact();
  runs_merge_only_where_both_sides_go_on();
  runs_merge_wherever_in_the_table_they_stand();
  large_tables_are_sorted_by_offsets_of_any_size();
  long_runs_are_split_without_a_gap();
}
