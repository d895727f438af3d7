#include "pipeline/firing_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace stoke::pipeline {
namespace {

constexpr size_t kNumberChars = 24;

}  // namespace

Result<std::unique_ptr<FiringLog>> FiringLog::create(const std::string& path, std::span<const NeuronTable> tables) {
  int64_t layers = 0;
  int64_t neurons = 0;
  for (const NeuronTable& t : tables) {
    layers = std::max<int64_t>(layers, t.records.layer + 1);
    neurons = std::max(neurons, t.records.neurons);
  }
  STOKE_ASSIGN(std::unique_ptr<FiringLog> log, create(path, layers, neurons));
  log->tables_ = tables;
  return log;
}

Result<std::unique_ptr<FiringLog>> FiringLog::create(const std::string& path, int64_t layers, int64_t neurons) {
  STOKE_ASSIGN(sys::File file, sys::File::create(path));
  std::unique_ptr<FiringLog> log(new FiringLog(std::move(file)));
  const std::string head = fmt::format("# firings: {} layers of {} neurons\n", layers, neurons);
  STOKE_TRY(log->file_.pwrite_full(head.data(), head.size(), 0));
  log->written_ = head.size();
  return log;
}

// False where that layer is not the next of a pass that is being written: a prompt's last.
bool FiringLog::begin(int64_t index) {
  if (index != 0 && index != next_) return false;
  if (index == 0 && any_) buffer_[used_++] = '\n';
  any_ = true;
  next_ = index + 1;
  return true;
}

Status FiringLog::add(int64_t index, int64_t layer, std::span<const model::ExpertUse> uses) {
  if (!begin(index)) return ok_status();
  STOKE_TRY(put(layer));
  for (size_t i = 0; i < uses.size(); ++i) {
    if (i == 0 || uses[i].expert != uses[i - 1].expert) STOKE_TRY(put(uses[i].expert));
  }
  buffer_[used_ - 1] = '\n';
  return flush();
}

Status FiringLog::add(const NeuronTable& table, std::span<const ClusterJob> jobs) {
  if (!begin(&table - tables_.data())) return ok_status();
  STOKE_TRY(put(table.records.layer));
  for (const ClusterJob& job : jobs) {
    for (int32_t i = 0; i < job.neurons; ++i) {
      if (job.firings(i) > 0) STOKE_TRY(put(job.first_neuron + i));
    }
  }
  buffer_[used_ - 1] = '\n';
  return flush();
}

// A number and a blank. There is always room for one character more.
Status FiringLog::put(int64_t number) {
  if (buffer_.size() - used_ < kNumberChars) STOKE_TRY(flush());
  const auto end = std::to_chars(buffer_.data() + used_, buffer_.data() + buffer_.size(), number).ptr;
  *end = ' ';
  used_ = static_cast<size_t>(end - buffer_.data()) + 1;
  return ok_status();
}

Status FiringLog::flush() {
  const size_t bytes = std::exchange(used_, 0);
  STOKE_TRY(file_.pwrite_full(buffer_.data(), bytes, written_));
  written_ += bytes;
  return ok_status();
}

}  // namespace stoke::pipeline
