#pragma once
#include <map>
#include <memory>
#include <string>

#include "core/simulator/policies/aegaeon.hpp"
#include "core/simulator/policies/aegvoltana.hpp"
#include "core/simulator/policies/dilu.hpp"
#include "core/simulator/policies/festina.hpp"
#include "core/simulator/policies/festina_paper.hpp"
#include "core/simulator/policies/muxserve.hpp"
#include "core/simulator/policies/serverlessllm.hpp"
#include "core/simulator/policy.hpp"
#include "core/simulator/settings.hpp"

namespace festina::simulator {

inline constexpr const char* kPolicies =
    "festina, festina-paper, serverlessllm, muxserve, dilu, aegaeon, aegvoltana";

// The policy of that name. Throws BadInput.
inline std::unique_ptr<Policy> make_policy(const std::string& name, int gpus,
                                           const std::map<std::string, double>& options) {
  Settings settings(options);
  if (name == "festina") {
    const FestinaOptions o(settings);
    settings.done("a setting of festina");
    return std::make_unique<Festina>(o, gpus);
  }
  if (name == "festina-paper") {
    const FestinaPaperOptions o(settings);
    settings.done("a setting of festina-paper");
    return std::make_unique<FestinaPaper>(o);
  }
  if (name == "serverlessllm") {
    const ServerlessLlmOptions o(settings);
    settings.done("a setting of serverlessllm");
    return std::make_unique<ServerlessLlm>(o, gpus);
  }
  if (name == "muxserve") {
    const MuxServeOptions o(settings);
    settings.done("a setting of muxserve");
    return std::make_unique<MuxServe>(o, gpus);
  }
  if (name == "dilu") {
    const DiluOptions o(settings);
    settings.done("a setting of dilu");
    return std::make_unique<Dilu>(o);
  }
  if (name == "aegaeon") {
    const AegaeonOptions o(settings);
    settings.done("a setting of aegaeon");
    return std::make_unique<Aegaeon>(o, gpus);
  }
  if (name == "aegvoltana") {
    const AegVoltanaOptions o(settings);
    settings.done("a setting of aegvoltana");
    return std::make_unique<AegVoltana>(o, gpus);
  }
  throw BadInput("policy", kPolicies);
}

}  // namespace festina::simulator
