// Times reads of the profile table and of its plain rivals, and counts torn reads beside a hot
// writer in another process. Prints one JSON object; run by bench/test_profile_table.py.
//
//   profile_table [reads]     reads = checked reads beside the hot writer (default 2e7)
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "core/profile_table/table.hpp"

using namespace festina;

namespace {

constexpr std::size_t kCells = 4096;  // 256 KiB of records
constexpr std::size_t kKeys = 1 << 14;
constexpr int kRepeats = 50;

Cell numbered(std::uint32_t n) {
  Cell cell{};
  cell.latency_ms = 1.0 + n;
  cell.power_w = 2.0 * n;
  cell.flops_per_s = 3.0 * n;
  cell.bytes_per_s = 4.0 * n;
  cell.spread = 0.01F;
  cell.latency_factor = 1.0F;
  cell.power_factor = 1.0F;
  cell.samples = n;
  cell.observations = ~n;
  return cell;
}

bool whole(const Cell& c) {
  const double n = c.samples;
  return c.latency_ms == 1.0 + n && c.power_w == 2.0 * n && c.flops_per_s == 3.0 * n &&
         c.bytes_per_s == 4.0 * n && c.observations == ~c.samples;
}

TableSpec spec() {
  TableSpec table;
  table.device = "bench";
  table.sms_total = 128;
  table.sms = {16, 32, 48, 64, 80, 96, 112, 128};
  table.clocks_mhz = {600, 800, 1000, 1200, 1400, 1600, 1800, 1980};
  table.idle_w = std::vector<float>(8, 70.0F);
  ModelSpec model;
  model.name = "bench";
  model.work0 = {{{16, 64, 256, 512, 1024, 2048, 4096, 8192}, {1, 2, 4, 8, 16, 32, 64, 128}}};
  model.work1 = {{{0, 512, 2048, 8192}, {64, 512, 2048, 8192}}};
  table.models = {model};
  for (std::uint32_t i = 0; i < kCells; ++i) table.cells.push_back(numbered(i));
  return table;
}

// --- rivals -------------------------------------------------------------------------------------

struct Plain {  // no synchronisation at all: the floor
  std::vector<Cell> cells = spec().cells;
  const Cell& read(std::size_t i) const { return cells[i]; }
};

struct Mutexed {
  std::vector<Cell> cells = spec().cells;
  std::mutex mutex;
  Cell read(std::size_t i) {
    const std::lock_guard lock(mutex);
    return cells[i];
  }
};

// One sequence per cell, odd while it is written (Boehm's form).
struct Seqlocked {
  std::array<ring::Slot, kCells> slots{};

  void write(std::size_t i, const Cell& cell) {
    const auto words = std::bit_cast<std::array<std::uint64_t, kCellWords>>(cell);
    auto& seq = slots[i].words.back();
    const std::uint64_t before = seq.load(std::memory_order_relaxed);
    seq.store(before + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t w = 0; w + 1 < kCellWords; ++w) {
      slots[i].words[w].store(words[w], std::memory_order_relaxed);
    }
    seq.store(before + 2, std::memory_order_release);
  }
  bool try_read(std::size_t i, Cell& out) const {
    std::array<std::uint64_t, kCellWords> words;
    const std::uint64_t before = slots[i].words.back().load(std::memory_order_acquire);
    for (std::size_t w = 0; w + 1 < kCellWords; ++w) {
      words[w] = slots[i].words[w].load(std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    words.back() = slots[i].words.back().load(std::memory_order_relaxed);
    out = ring::unpack(words);
    return before % 2 == 0 && words.back() == before;
  }
};

// --- timing -------------------------------------------------------------------------------------

std::vector<std::uint32_t> random_keys(std::uint32_t below) {
  std::mt19937 rng(1);
  std::vector<std::uint32_t> keys(kKeys);
  for (auto& key : keys) key = static_cast<std::uint32_t>(rng() % below);
  return keys;
}

template <class T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

// Least nanoseconds per call of `read(key)` over all keys, over some repeats.
template <class Read>
double ns_per_read(const std::vector<std::uint32_t>& keys, Read read) {
  double best = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    double sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::uint32_t key : keys) sum += read(key);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    keep(sum);
    best = std::min(best, took.count() / static_cast<double>(keys.size()));
  }
  return best;
}

void print(const char* name, double value) { std::printf("\"%s\": %.4g,\n", name, value); }

double figures(const Cell& c) { return c.latency_ms + c.power_w + c.flops_per_s + c.spread; }

void quiet(const ProfileTable& table) {
  const ProfileView view = table.view();
  const auto keys = random_keys(kCells);
  const Plain plain;
  Mutexed mutexed;
  const auto seqlocked = std::make_unique<Seqlocked>();
  for (std::size_t i = 0; i < kCells; ++i) seqlocked->write(i, numbered(0));
  print("plain_ns", ns_per_read(keys, [&](auto i) { return figures(plain.read(i)); }));
  print("record_ns", ns_per_read(keys, [&](auto i) { return figures(view.cell(i)); }));
  print("seqlock_ns", ns_per_read(keys, [&](auto i) {
          Cell cell;
          while (!seqlocked->try_read(i, cell)) {
          }
          return figures(cell);
        }));
  print("mutex_ns", ns_per_read(keys, [&](auto i) { return figures(mutexed.read(i)); }));

  std::vector<WorkPoint> work;
  for (int i = 0; i < 64; ++i) {
    work.push_back(view.locate(0, i % 2 ? Phase::decode : Phase::prefill,
                               static_cast<float>(3 + 37 * i), static_cast<float>(101 * i)));
  }
  print("estimate_located_ns", ns_per_read(keys, [&](auto i) {
          return view.estimate(work[i % 64], (i >> 6) % 8, (i >> 9) % 8).latency_ms;
        }));
  print("estimate_ns", ns_per_read(keys, [&](auto i) {
          return view
              .estimate(0, static_cast<Phase>(i & 1), (i >> 6) % 8, (i >> 9) % 8,
                        static_cast<float>(i * 2), static_cast<float>(i))
              .latency_ms;
        }));
  print("least_rung_ns", ns_per_read(keys, [&](auto i) {
          return view.least_rung(work[i % 64], (i >> 6) % 8, static_cast<float>(i));
        }));
  const std::vector<std::uint32_t> few(keys.begin(), keys.begin() + 256);
  print("cheapest_64_points_ns", ns_per_read(few, [&](auto i) {
          return view.cheapest(work[i % 64], static_cast<float>(i)).latency_ms;
        }));
}

// --- beside a hot writer in another process
// -------------------------------------------------------

// Runs `write(n)` for n = 1, 2, ... in another process until stop() kills it.
template <class Write>
pid_t hot_writer(Write write) {
  const pid_t child = fork();
  if (child != 0) return child;
  for (std::uint32_t n = 1;; n = n % 4'000'000 + 1) write(n);
}

void stop(pid_t writer) {
  kill(writer, SIGKILL);
  waitpid(writer, nullptr, 0);
}

// Reads `count` cells, checks each, and gives the number that was torn.
template <class Read>
std::uint64_t torn_reads(std::uint64_t count, const std::vector<std::uint32_t>& keys, Read read) {
  std::uint64_t torn = 0;
  for (std::uint64_t i = 0; i < count; ++i) torn += !whole(read(keys[i % kKeys]));
  return torn;
}

void beside_hot_writer(const ProfileTable& table, std::uint64_t reads) {
  const std::string name = "festina-bench-" + std::to_string(getpid());
  ProfileTable shared = table.publish(name);
  const ProfileTable attached = ProfileTable::attach(name);
  shared.unlink();
  const ProfileView view = attached.view();
  const auto keys = random_keys(kCells);
  const std::vector<std::uint32_t> one_cell(kKeys, 7);
  const auto hot = random_keys(kCells);

  pid_t writer = hot_writer([&](std::uint32_t n) { shared.write(hot[n % kKeys], numbered(n)); });
  print("record_hot_ns", ns_per_read(keys, [&](auto i) { return figures(view.cell(i)); }));
  const std::uint64_t torn = torn_reads(reads, keys, [&](auto i) { return view.cell(i); });
  stop(writer);
  print("checked_reads", static_cast<double>(reads));
  print("torn_reads", static_cast<double>(torn));
  print("torn_after_kill",
        static_cast<double>(torn_reads(kKeys, keys, [&](auto i) { return view.cell(i); })));

  writer = hot_writer([&](std::uint32_t n) { shared.write(7, numbered(n)); });
  print("record_same_cell_ns",
        ns_per_read(one_cell, [&](auto i) { return figures(view.cell(i)); }));
  print("torn_same_cell", static_cast<double>(torn_reads(reads / 10, one_cell,
                                                         [&](auto i) { return view.cell(i); })));
  stop(writer);

  auto* rival = new (mmap(nullptr, sizeof(Seqlocked), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Seqlocked;
  for (std::size_t i = 0; i < kCells; ++i) rival->write(i, numbered(0));
  writer = hot_writer([&](std::uint32_t n) { rival->write(7, numbered(n)); });
  std::uint64_t read = 0;
  Cell cell{};
  for (std::size_t i = 0; i < 1'000'000; ++i) read += rival->try_read(7, cell);
  stop(writer);
  print("seqlock_same_cell_success", static_cast<double>(read) / 1e6);
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t reads = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000'000;
  const ProfileTable table(spec());
  std::printf("{\n");
  quiet(table);
  beside_hot_writer(table, reads);
  std::printf("\"cells\": %zu\n}\n", kCells);
}
