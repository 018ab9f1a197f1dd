// Readers beside a hot writer: in one process, across processes, and after the writer's sudden
// death.
//
// The writer publishes cells whose every word follows from one counter, so that a torn read shows;
// and the counter only rises, so that a reader that ever sees it fall has found an order that no
// sequence of writes allows: with one writer per cell that is linearizability of its reads.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.hpp"
#include "core/profile_table/table.hpp"
#include "profile_table_sample.hpp"

using namespace festina;

namespace {

constexpr std::size_t kHotCells = 3;  // few, so that readers and writer meet often
constexpr int kReads = 200'000;

Cell numbered(std::uint32_t n) {
  Cell cell{};
  cell.latency_ms = 1.0 + n;
  cell.power_w = 2.0 * n;
  cell.flops_per_s = 3.0 * n;
  cell.bytes_per_s = 4.0 * n;
  cell.spread = static_cast<float>(n % 1024);
  cell.latency_factor = 1.0F;
  cell.power_factor = 1.0F;
  cell.samples = n;
  cell.observations = ~n;
  cell.source = Source::corrected;
  return cell;
}

bool whole(const Cell& cell) {
  const Cell expected = numbered(cell.samples);
  return cell.latency_ms == expected.latency_ms && cell.power_w == expected.power_w &&
         cell.flops_per_s == expected.flops_per_s && cell.bytes_per_s == expected.bytes_per_s &&
         cell.spread == expected.spread && cell.observations == expected.observations;
}

void start(ProfileTable& table) {
  for (std::size_t i = 0; i < kHotCells; ++i) table.write(i, numbered(0));
}

// Reads all hot cells in turn; gives how many different values it saw.
int read_monotone(const ProfileView& view) {
  std::array<std::uint32_t, kHotCells> seen{};
  int changes = 0;
  for (int i = 0; i < kReads; ++i) {
    const std::size_t index = static_cast<std::size_t>(i) % kHotCells;
    const Cell cell = view.cell(index);
    CHECK(whole(cell));
    CHECK(cell.samples >= seen[index]);
    changes += cell.samples != seen[index];
    seen[index] = cell.samples;
    const Cost cost = view.cost(index);  // stored after its record: never far behind, never torn
    CHECK_EQ(cost.power_w, 2.0F * (cost.latency_ms - 1.0F));
  }
  return changes;
}

void threads_see_whole_cells_that_only_advance() {
  ProfileTable table(sample::spec());
  start(table);
  std::atomic<bool> done{false};
  std::atomic<int> changes{0};
  std::thread writer([&] {
    // Below 2^22, so that all figures are exact in float too.
    for (std::uint32_t n = 1; !done.load(std::memory_order_relaxed) && n < (1U << 22); ++n) {
      for (std::size_t i = 0; i < kHotCells; ++i) table.write(i, numbered(n));
    }
  });
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] { changes += read_monotone(table.view()); });
  }
  for (std::thread& reader : readers) reader.join();
  done = true;
  writer.join();
  CHECK(changes > 0);
}

std::string shared_name(const char* test) {
  return std::string("festina-test-") + test + "-" + std::to_string(getpid());
}

// Starts a process that writes without pause until it is killed.
pid_t hot_writer(const std::string& name, bool take_over) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child > 0) return child;
  const auto run = [](ProfileTable table) {
    if (table.view().cell(0).samples == 3) start(table);  // a fresh sample, not numbered yet
    for (std::uint32_t n = table.view().cell(0).samples + 1;; ++n) {
      for (std::size_t i = 0; i < kHotCells; ++i) table.write(i, numbered(n));
    }
  };
  if (take_over) {
    run(ProfileTable::take_over(name));
  } else {
    ProfileTable mine(sample::spec());
    start(mine);
    run(mine.publish(name));
  }
  _exit(EXIT_FAILURE);
}

ProfileTable attach_soon(const std::string& name) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    try {
      return ProfileTable::attach(name);
    } catch (const ProfileError&) {
      CHECK(std::chrono::steady_clock::now() < deadline);
      std::this_thread::yield();
    }
  }
}

void kill_and_wait(pid_t child) {
  CHECK_EQ(kill(child, SIGKILL), 0);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status));
}

// Until the writer's counter has moved on from `from`.
void await_progress(const ProfileView& view, std::uint32_t from) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (view.cell(0).samples <= from) {
    CHECK(std::chrono::steady_clock::now() < deadline);
    std::this_thread::yield();
  }
}

void a_killed_writer_leaves_a_readable_table_that_its_successor_goes_on_with() {
  const std::string name = shared_name("kill");
  pid_t writer = hot_writer(name, false);
  const ProfileTable reader = attach_soon(name);
  std::uint32_t last = 0;
  for (int round = 0; round < 10; ++round) {
    await_progress(reader.view(), last);
    read_monotone(reader.view());
    kill_and_wait(writer);
    for (std::size_t i = 0; i < kHotCells; ++i) {
      const Cell cell = reader.view().cell(i);
      CHECK(whole(cell));
      CHECK(cell.samples + 1 >= reader.view().cell(0).samples);
    }
    last = reader.view().cell(0).samples;
    writer = hot_writer(name, true);
  }
  await_progress(reader.view(), last);
  CHECK(reader.view().header().epoch.load() == 11);
  CHECK_THROWS(ProfileTable::take_over(name), ProfileError);  // the writer lives
  CHECK_THROWS(ProfileTable(sample::spec()).publish(name), ProfileError);
  kill_and_wait(writer);
  ProfileTable::take_over(name).unlink();
  CHECK_THROWS(ProfileTable::attach(name), ProfileError);
}

void a_region_that_is_no_table_is_refused() {
  const std::string name = shared_name("bad");
  ProfileTable table = ProfileTable(sample::spec()).publish(name);
  auto* header = const_cast<layout::Header*>(&table.view().header());
  const auto refused = [&](auto& field, auto value) {
    const auto before = std::exchange(field, value);
    CHECK_THROWS(ProfileTable::attach(name), ProfileError);
    field = before;
  };
  refused(header->version, layout::kVersion + 1);
  refused(header->counts.cells, 7U);
  refused(header->counts.rungs, 0U);
  refused(header->region_bytes, std::uint64_t{64});
  auto* grid = const_cast<layout::Grid*>(&table.view().grid(0, Phase::decode));
  refused(grid->first_cell, 1'000'000U);
  refused(grid->work0.count, 1'000'000U);
  header->magic = 0;
  CHECK_THROWS(ProfileTable::attach(name), ProfileError);
  header->magic = layout::kMagic;
  CHECK_EQ(ProfileTable::attach(name).view().cells(), table.view().cells());
  table.unlink();
}

}  // namespace

int main() {
  threads_see_whole_cells_that_only_advance();
  a_killed_writer_leaves_a_readable_table_that_its_successor_goes_on_with();
  a_region_that_is_no_table_is_refused();
}
