#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/batches.hpp"
#include "core/local/chooser.hpp"
#include "core/local/cost.hpp"
#include "core/local/types.hpp"

namespace festina::local {

// What a device that serves could do next, sequence by sequence, and what it should do. Filled and
// asked again and again; keeps memory between.
class Situation {
 public:
  explicit Situation(const Options& options) : options_(options), chooser_(options) {}

  void clear() {
    rows_.clear();
    costs_.clear();
    decodes_.clear();
    prompts_.clear();
  }
  // A model without a step under way; what is added next is of this model.
  void add_lane(const ModelCost& cost, double memory_free, bool alone, double last_step_ms) {
    rows_.push_back({memory_free, alone, last_step_ms, decodes_.size(), prompts_.size()});
    costs_.push_back(cost);
  }
  void add(const Decode& decode) { decodes_.push_back(decode); }
  void add(const Prompt& prompt) { prompts_.push_back(prompt); }

  Choice choose(int slots, double now_ms) {
    lanes_.clear();
    batches_.clear();
    batches_.reserve(decodes_.size());  // the lanes' spans point into them
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const Row& r = rows_[i];
      const std::size_t batch = batches_.size();
      append_batches(of(decodes_, i, &Row::decode), options_, batches_);
      lanes_.push_back({static_cast<int>(i), std::span(batches_).subspan(batch),
                        of(prompts_, i, &Row::prompt), r.memory_free, r.alone, r.last_step_ms});
    }
    return chooser_.choose(lanes_, ModelCosts{costs_}, slots, now_ms);
  }

  // The decodes of a choice just made.
  std::span<const Decode> decodes(const Choice& choice) {
    if (choice.decodes == 0) return {};
    const auto first =
        static_cast<std::size_t>(choice.batch) * static_cast<std::size_t>(options_.batch_max);
    return of(decodes_, static_cast<std::size_t>(choice.lane), &Row::decode)
        .subspan(first, static_cast<std::size_t>(choice.decodes));
  }

 private:
  struct Row {
    double memory_free;
    bool alone;
    double last_step_ms;
    std::size_t decode;  // where its parts begin
    std::size_t prompt;
  };

  template <class T>
  std::span<T> of(std::vector<T>& all, std::size_t lane, std::size_t Row::* begin) {
    const std::size_t end = lane + 1 < rows_.size() ? rows_[lane + 1].*begin : all.size();
    return std::span(all).subspan(rows_[lane].*begin, end - rows_[lane].*begin);
  }

  Options options_;
  Chooser chooser_;
  std::vector<Row> rows_;
  std::vector<ModelCost> costs_;
  std::vector<Decode> decodes_;
  std::vector<Prompt> prompts_;
  std::vector<Batch> batches_;
  std::vector<Lane> lanes_;
};

}  // namespace festina::local
