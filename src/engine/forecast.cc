#include "engine/forecast.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "engine/memory_need.h"
#include "pipeline/superset.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "sys/profile.h"

namespace stoke::engine {
namespace {

constexpr size_t kLargeBytes = size_t{16} << 20;
constexpr size_t kLargeInFlight = size_t{4} << 20;
constexpr int kLargeDepthMax = 16;  // the window of what streams
constexpr double kLargeSeconds = 0.05;
constexpr int kSmallTrials = 256;
constexpr int kSmallDepth = 32;
constexpr double kSmallSeconds = 0.02;
constexpr uint64_t kLargeRequest = 128 << 10;

// Reads for the sake of their time, a few in flight, and forgets the bytes.
class Trial final : private pipeline::ReadClient {
 public:
  Trial(pipeline::IoQueue& queue, int depth, size_t bytes_each) : queue_(queue), bytes_each_(bytes_each) {
    auto memory = sys::Memory::map(static_cast<size_t>(depth) * bytes_each);
    if (!memory.ok()) return;
    memory_ = std::move(*memory);
    for (int place = 0; place < depth; ++place) free_.push_back(static_cast<uint64_t>(place));
    places_ = depth;
  }

  // Bytes a second, or 0.
  double run(std::span<io::Read> reads, double seconds) {
    const sys::Stopwatch watch(clock_);
    if (places_ == 0) return 0;
    for (io::Read& read : reads) {
      if (read.bytes > bytes_each_ || failed_ || watch.seconds() > seconds) break;
      while (free_.empty()) queue_.wait();
      if (!read.file->direct()) read.file->drop_cached(read.offset, read.bytes);
      read.tag = free_.back();
      read.dst = memory_.data() + read.tag * bytes_each_;
      if (!queue_.push(*this, read, pipeline::IoQueue::Priority::kBackground)) break;
      free_.pop_back();
      queue_.pump();
    }
    while (static_cast<int>(free_.size()) < places_) queue_.wait();
    return failed_ ? 0 : static_cast<double>(bytes_) / std::max(watch.seconds(), 1e-6);
  }

 private:
  void on_read(const io::Read& read, const io::Done& done) override {
    free_.push_back(read.tag);
    bytes_ += done.bytes;
    failed_ = failed_ || done.error != 0;
  }

  pipeline::IoQueue& queue_;
  size_t bytes_each_;
  sys::SystemClock clock_;
  sys::Memory memory_;
  std::vector<uint64_t> free_;
  int places_ = 0;
  uint64_t bytes_ = 0;
  bool failed_ = false;
};

// Units spread evenly over the model.
double trial_of_units(pipeline::IoQueue& queue, const pipeline::UnitTable& units) {
  std::vector<io::Read> reads;
  const auto count = std::min<int64_t>(static_cast<int64_t>(kLargeBytes / units.slot_bytes()) + 1, units.size());
  const int depth = std::clamp(static_cast<int>(kLargeInFlight / units.slot_bytes()), 4, kLargeDepthMax);
  for (int64_t i = 0; i < count; ++i) {
    const pipeline::Unit& unit = units.unit({static_cast<int32_t>(i * units.size() / count)});
    reads.push_back(pipeline::superset(*unit.file, unit.offset, unit.bytes, nullptr));
  }
  return Trial(queue, depth, units.slot_bytes()).run(reads, kLargeSeconds);
}

// Records in no order, as misses come: a multiplicative step visits the tables' neurons all over.
double trial_of_records(pipeline::IoQueue& queue, const std::vector<RecordTable>& tables,
                        const std::vector<OpenedFile>& files) {
  std::vector<io::Read> reads;
  size_t most = 0;
  uint64_t state = 1;
  uint64_t useful = 0;
  uint64_t read_bytes = 0;
  for (int i = 0; i < kSmallTrials; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    const RecordTable& table = tables[(state >> 20) % tables.size()];
    const auto neuron = static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(table.neurons));
    const size_t bytes = table.record.record_bytes;
    reads.push_back(pipeline::superset(files[table.file].direct, table.offset_of(neuron), bytes, nullptr));
    most = std::max<size_t>(most, reads.back().bytes);
    useful += bytes;
    read_bytes += reads.back().bytes;
  }
  const double rate = Trial(queue, kSmallDepth, most).run(reads, kSmallSeconds);
  return rate * static_cast<double>(useful) / static_cast<double>(read_bytes);
}

// Two digits are all that such figures hold.
std::string rate_text(double tokens_per_s) {
  return tokens_per_s < 9.95 ? fmt::format("{:.2g}", tokens_per_s) : fmt::format("{:.0f}", tokens_per_s);
}

std::string speed_text(double bytes_per_s) { return fmt::format("{:.2g} GB/s", bytes_per_s * 1e-9); }

double over(double bytes, double bytes_per_s) { return bytes_per_s > 0 ? bytes / bytes_per_s : 0; }

std::string assumption(const TokenWork& work) {
  if (work.record_bytes == 0) return "if all experts are chosen equally often";
  if (work.rates_known) return "if neurons fire as the store says";
  return fmt::format("if {:.0f} % of the neurons fire, all equally often", kFiringShare * 100);
}

}  // namespace

std::optional<ReadRates> kept_rates(const std::string& path, int threads, size_t record_bytes) {
  const std::filesystem::path file(path);
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  const auto profile = sys::load_profile(sys::profile_key(folder));
  if (!profile.ok() || !profile->disk) return std::nullopt;
  ReadRates rates{.large_bytes_per_s = profile->disk->sequential_direct_bytes_per_s, .source = "stoke profile"};
  rates.dram_bytes_per_s =
      threads == 1 ? profile->dram_read_one_thread_bytes_per_s : profile->dram_read_all_threads_bytes_per_s;
  uint64_t request = UINT64_MAX;  // the smallest that holds a record
  for (const sys::DiskRate& rate : profile->disk->random) {
    if (rate.request_bytes >= kLargeRequest) {
      rates.large_bytes_per_s = std::max(rates.large_bytes_per_s, rate.bytes_per_s);
    }
    if (record_bytes == 0 || rate.request_bytes < record_bytes || rate.depth != kSmallDepth) continue;
    if (rate.request_bytes >= request) continue;
    request = rate.request_bytes;
    rates.small_bytes_per_s =
        rate.bytes_per_s * static_cast<double>(record_bytes) / static_cast<double>(rate.request_bytes);
  }
  return rates;
}

ReadRates trial_rates(pipeline::IoQueue& queue, const pipeline::UnitTable& units,
                      const std::vector<RecordTable>& records, const std::vector<OpenedFile>& files) {
  ReadRates rates{.source = "a trial read"};
  if (units.size() > 0) rates.large_bytes_per_s = trial_of_units(queue, units);
  if (!records.empty()) rates.small_bytes_per_s = trial_of_records(queue, records, files);
  return rates;
}

Forecast forecast(const TokenWork& work, const ReadRates& rates) {
  Forecast f{
      .disk_bytes_per_s = rates.large_bytes_per_s, .dram_bytes_per_s = rates.dram_bytes_per_s, .source = rates.source};
  const double missed = static_cast<double>(work.chosen) * (1 - work.chosen_here);
  f.bytes_per_token = static_cast<int64_t>(work.streamed) + static_cast<int64_t>(missed);
  if (rates.large_bytes_per_s <= 0) return f;
  const bool single = work.record_bytes > 0 && rates.small_bytes_per_s > 0;
  const double chosen_rate = single ? rates.small_bytes_per_s : rates.large_bytes_per_s;
  const double streaming = over(static_cast<double>(work.streamed), rates.large_bytes_per_s);
  const double computing = over(static_cast<double>(work.dense + work.chosen), rates.dram_bytes_per_s);
  const double reading = streaming + over(missed, chosen_rate);
  const double worst = std::max(reading, computing);
  const double best = std::max(streaming, computing);
  if (worst <= 0) return f;
  f.tokens_per_s = 1 / worst;
  f.tokens_per_s_best = best > 0 ? 1 / best : 0;
  f.text = fmt::format("at most about {} tok/s", rate_text(f.tokens_per_s));
  if (missed > 0) {
    f.text += " " + assumption(work);
    f.text += best > 0 ? fmt::format(", {} if all that is chosen is in memory", rate_text(f.tokens_per_s_best))
                       : ", more where some are chosen more often";
  }
  const bool by_disk = reading >= computing;
  f.text += fmt::format(" ({} from {}, by {})", speed_text(by_disk ? rates.large_bytes_per_s : rates.dram_bytes_per_s),
                        by_disk ? "disk" : "memory", rates.source);
  return f;
}

std::string tight_advice(const Tightness& t, const TokenWork& work) {
  if (t.budget - t.least > t.weights / 20) return "";
  std::string text = fmt::format(
      "close to the least that runs, {} for a context of {}: a prompt is computed {} tokens a pass, and "
      "each pass reads {}",
      bytes_text(t.least), t.context, t.batch, bytes_text(static_cast<int64_t>(work.streamed)));
  const auto half = t.budget + static_cast<int64_t>(work.streamed / 2);
  if (work.chosen == 0 && half < t.full) {
    return text + fmt::format("; with {} a token would read half as much, with {} nothing", bytes_text(half),
                              bytes_text(t.full));
  }
  return text + fmt::format("; with {} nothing would be read", bytes_text(t.full));
}

}  // namespace stoke::engine
