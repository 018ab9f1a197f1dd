#pragma once
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// The values that go into and out of global placement (DESIGN 4.1, paper section 3.3).
namespace festina::placement {

inline constexpr float kNever = std::numeric_limits<float>::infinity();

enum class Policy : std::uint8_t { festina, paper };

// What the agent has to do before the request can start.
enum class Action : std::uint8_t { run, load, wake };

// Values shared with festina.types.ModelState.
enum class Residency : std::uint8_t { absent = 0, loading = 1, ready = 2, unloading = 3 };

struct Options {
  Policy policy = Policy::festina;
  float margin = 0.05F;          // share of each objective kept in reserve
  float tie_share = 0.02F;       // paper: energies this close count as equal
  int queue_max = 512;           // requests waiting on one GPU before it takes no more
  double reservation_ms = 2000;  // how long a reservation counts without its ticket
  int retry_after_ms = 500;      // least advice to refused clients
  double wake_stay_ms = 60'000;  // how long a woken GPU is expected to stay awake
  // The improvements of the `festina` form, each of which can be switched off alone.
  bool marginal_energy = true;  // else bill the whole device's power to the request
  bool batch_aware = true;      // else read the profile at batch 1
  bool interference = true;     // else take no notice of co-resident models
  bool raise_clock = true;      // else only the clock the device has
  bool charge_raise = true;     // else co-residents' share of a raised clock is free
  bool spread_margin = true;    // else the profile's own error counts for nothing
};

struct Slo {
  float ttft_ms;
  float tbt_ms;
};

struct Request {
  int model;
  int input_tokens;
  int output_tokens;  // expected, or the bound where nothing better is known
  Slo slo;
};

struct Placement {
  int slot = -1;
  Action action = Action::run;
  bool on_time = true;  // false: no GPU meets the objectives now; this one is least late
  int clock_mhz = 0;
  float ttft_ms = kNever;  // upper estimates: they include the profile's spread
  float tbt_ms = kNever;
  float energy_j = kNever;
};

// One deployment on one GPU (festina.types.ModelSummary).
struct Resident {
  int model;
  Residency state;
  int running;
  int waiting;
  double context_tokens;
  double waiting_tokens;
  float tbt_ms;
};

// One GPU at one moment (festina.types.GpuSummary).
struct Summary {
  int clock_mhz = 0;
  int clock_target_mhz = 0;
  int sms_free = 0;
  float free_in_ms = 0;
  double kv_tokens_total = 0;
  double kv_tokens_free = 0;
  double memory_free_bytes = 0;
  bool parked = false;
  std::vector<Resident> residents;
  std::vector<std::uint64_t> tickets;
};

// Why a request was not placed, or an argument not taken. The names are those of festina.errors.
enum class Reason : std::uint8_t {
  bad_request,
  unknown_model,
  context_limit,
  infeasible,
  overloaded
};

class Refusal : public std::runtime_error {
 public:
  Refusal(Reason reason, const std::string& message, std::string field, std::string expected = "",
          int retry_after_ms = 0)
      : std::runtime_error(message),
        reason_(reason),
        field_(std::move(field)),
        expected_(std::move(expected)),
        retry_after_ms_(retry_after_ms) {}

  Reason reason() const noexcept { return reason_; }
  const std::string& field() const noexcept { return field_; }
  const std::string& expected() const noexcept { return expected_; }
  int retry_after_ms() const noexcept { return retry_after_ms_; }

 private:
  Reason reason_;
  std::string field_;
  std::string expected_;
  int retry_after_ms_;
};

}  // namespace festina::placement
