#include "sys/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>

namespace stoke::sys {
namespace {

struct KindRow {
  TraceKind kind;
  const char* name;
  const char* a;  // what the number means; null: it is not written
  const char* b;
};

constexpr std::array<KindRow, static_cast<size_t>(TraceKind::kCount)> kKinds = {{
    {TraceKind::kOpen, "open model", nullptr, nullptr},
    {TraceKind::kPrompt, "prompt", "tokens", "position"},
    {TraceKind::kToken, "token", "sequences", "position"},
    {TraceKind::kEmbedding, "embedding rows", "tokens", nullptr},
    {TraceKind::kAttention, "attention", "layer", nullptr},
    {TraceKind::kFfn, "ffn", "layer", nullptr},
    {TraceKind::kLogits, "logits", "rows", nullptr},
    {TraceKind::kWork, "work", nullptr, nullptr},
    {TraceKind::kWorkerWait, "wait for workers", nullptr, nullptr},
    {TraceKind::kGates, "gates", "cluster", "rows"},
    {TraceKind::kCluster, "cluster", "cluster", "active"},
    {TraceKind::kClusters, "whole clusters", "first_neuron", "neurons"},
    {TraceKind::kDiskWait, "wait for disk", nullptr, nullptr},
}};

constexpr bool in_order() {
  for (size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i].kind != static_cast<TraceKind>(i)) return false;
  }
  return true;
}
static_assert(in_order());

// A JSON string. Bytes that are no text are replaced.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Microseconds, to the nanosecond.
struct Micros {
  int64_t ns;
};

}  // namespace
}  // namespace stoke::sys

template <>
struct fmt::formatter<stoke::sys::Micros> {
  constexpr auto parse(format_parse_context& context) { return context.begin(); }
  auto format(stoke::sys::Micros time, format_context& context) const {
    return fmt::format_to(context.out(), "{}.{:03}", time.ns / 1000, time.ns % 1000);
  }
};

namespace stoke::sys {

// Text gathered into writes of some size; the first failure stays.
class Trace::Writer {
 public:
  explicit Writer(const File& file) : file_(file) { text_.reserve(kBytes + kBytes / 4); }

  template <typename... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    if (text_.size() >= kBytes) flush();
  }
  // Each event stands on a line of its own.
  void next() {
    if (!first_) text_ += ",\n";
    first_ = false;
  }
  void flush() {
    if (status_.ok()) status_ = file_.pwrite_full(text_.data(), text_.size(), at_);
    at_ += text_.size();
    text_.clear();
  }
  const Status& status() const { return status_; }

 private:
  static constexpr size_t kBytes = 64 << 10;
  const File& file_;
  std::string text_;
  uint64_t at_ = 0;
  bool first_ = true;
  Status status_;
};

int64_t Trace::bytes(const Options& options) {
  return options.events *
         static_cast<int64_t>(sizeof(TraceEvent) * static_cast<size_t>(options.workers) + sizeof(ReadEvent));
}

Result<std::unique_ptr<Trace>> Trace::open(const Options& options) {
  STOKE_ASSIGN(File file, File::create(options.path));
  return std::unique_ptr<Trace>(new Trace(options, std::move(file)));
}

Trace::Trace(const Options& options, File file)
    : file_(std::move(file)), opened_ns_(clock_.now_ns()), tracks_(static_cast<size_t>(options.workers)) {
  const auto events = static_cast<size_t>(std::max<int64_t>(options.events, 1));
  for (Ring<TraceEvent>& track : tracks_) track.events.resize(events);
  reads_.events.resize(events);
}

Trace::~Trace() {
  const Status unheard = write();
  (void)unheard;
}

void Trace::add_read(const File* file, uint64_t offset, uint32_t bytes, int64_t start_ns) {
  const auto found = std::find_if(files_.begin(), files_.end(), [&](const auto& named) { return named.first == file; });
  reads_.add({.start_ns = start_ns,
              .end_ns = now_ns(),
              .offset = offset,
              .bytes = bytes,
              .file = found == files_.end() ? -1 : static_cast<int32_t>(found - files_.begin())});
}

void Trace::write_names(Writer& out) const {
  out.next();
  out.put(R"({{"ph":"M","name":"process_name","pid":1,"tid":0,"args":{{"name":{}}}}})", quoted(process_));
  for (size_t i = 0; i <= tracks_.size(); ++i) {
    const std::string name = i == tracks_.size() ? "reads" : fmt::format("worker {}{}", i, i == 0 ? ", control" : "");
    out.next();
    out.put(R"({{"ph":"M","name":"thread_name","pid":1,"tid":{},"args":{{"name":"{}"}}}})", i, name);
  }
}

void Trace::write_track(Writer& out, size_t worker) const {
  const Ring<TraceEvent>& ring = tracks_[worker];
  for (uint64_t n = ring.dropped(); n < ring.added; ++n) {
    const TraceEvent& event = ring.events[n % ring.events.size()];
    const KindRow& kind = kKinds[static_cast<size_t>(event.kind)];
    out.next();
    out.put(R"({{"ph":"X","name":"{}","pid":1,"tid":{},"ts":{},"dur":{})", kind.name, worker,
            Micros{event.start_ns - opened_ns_}, Micros{event.end_ns - event.start_ns});
    if (kind.a != nullptr) out.put(R"(,"args":{{"{}":{})", kind.a, event.a);
    if (kind.b != nullptr) out.put(R"(,"{}":{})", kind.b, event.b);
    out.put("{}", kind.a != nullptr ? "}}" : "}");
  }
}

// Reads overlap, which spans of one thread may not: they are asynchronous events with an id each.
void Trace::write_reads(Writer& out) const {
  for (uint64_t n = reads_.dropped(); n < reads_.added; ++n) {
    const ReadEvent& read = reads_.events[n % reads_.events.size()];
    const std::string file = read.file < 0 ? "\"\"" : quoted(files_[static_cast<size_t>(read.file)].second);
    out.next();
    out.put(R"({{"ph":"b","cat":"read","name":"read","id":{},"pid":1,"tid":{},"ts":{},)", n, tracks_.size(),
            Micros{read.start_ns - opened_ns_});
    out.put(R"("args":{{"bytes":{},"offset":{},"file":{}}}}})", read.bytes, read.offset, file);
    out.next();
    out.put(R"({{"ph":"e","cat":"read","name":"read","id":{},"pid":1,"tid":{},"ts":{}}})", n, tracks_.size(),
            Micros{read.end_ns - opened_ns_});
  }
}

// How many events each track has lost.
std::string Trace::footer() const {
  std::string dropped;
  for (size_t i = 0; i < tracks_.size(); ++i) dropped += fmt::format(R"("worker {}":{},)", i, tracks_[i].dropped());
  return fmt::format(R"(],"displayTimeUnit":"ms","otherData":{{"dropped_events":{{{}"reads":{}}}}}}})", dropped,
                     reads_.dropped());
}

Status Trace::write() {
  if (written_) return ok_status();
  written_ = true;
  Writer out(file_);
  out.put("{{\"traceEvents\":[\n");
  write_names(out);
  for (size_t worker = 0; worker < tracks_.size(); ++worker) write_track(out, worker);
  write_reads(out);
  out.put("\n{}\n", footer());
  out.flush();
  return out.status();
}

}  // namespace stoke::sys
