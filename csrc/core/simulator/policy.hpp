#pragma once

namespace festina::simulator {

class Cluster;
struct Gpu;
struct Lane;

// Decides what the GPUs of a cluster do. Called by the simulation, one call at a time; acts through
// the mechanisms of `Cluster` and sees the cluster only through its profile, never the truth.
class Policy {
 public:
  Policy() = default;
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;
  virtual ~Policy() = default;

  // Before the first event: what is resident where, and clocks.
  virtual void start(Cluster& cluster) = 0;
  // A request was sent: it must be enqueued on a GPU, kept by the policy, or rejected.
  virtual void arrived(Cluster& cluster, int request) = 0;
  // Something changed on this GPU: a step, load, wake, move or timer ended, or a request came.
  virtual void dispatch(Cluster& cluster, Gpu& gpu) = 0;
  // A prompt is in the cache and its first token is out; the default decodes on the same GPU.
  virtual void prefilled(Cluster& cluster, int request);
  virtual void finished(Cluster& /*cluster*/, int /*request*/) {}
  // Every `tick_ms()`, while that is above 0.
  virtual double tick_ms() const { return 0; }
  virtual void tick(Cluster& /*cluster*/) {}
};

}  // namespace festina::simulator
