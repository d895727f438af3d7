#include "fetch/download.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "fetch/digest.h"
#include "sys/files.h"

namespace stoke::fetch {
namespace {

using Json = nlohmann::json;

constexpr double kPauseMaxS = 30;
constexpr double kPauseSliceS = 0.1;  // how often a pause looks whether it was cancelled
constexpr int kPartial = 206;
constexpr int kOk = 200;
constexpr int kRangeNotSatisfiable = 416;
constexpr uint64_t kSpaceMargin = uint64_t{16} << 20;  // left free on the disk
constexpr int kUnresolvedRetries = 1;
// Changed bytes are fetched once more from the start; twice wrong is not the line's fault.
constexpr int kChecksumTries = 2;

std::optional<uint64_t> to_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "bytes 100-199/1000" or "bytes */1000".
struct ContentRange {
  std::optional<uint64_t> begin;
  std::optional<uint64_t> total;
};
ContentRange parse_content_range(std::string_view text) {
  ContentRange range;
  if (!text.starts_with("bytes ")) return range;
  text.remove_prefix(6);
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return range;
  range.total = to_number(text.substr(slash + 1));
  range.begin = to_number(text.substr(0, text.find('-')));
  return range;
}

std::string quoted_text(std::string text) {
  if (text.starts_with("W/")) text.erase(0, 2);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') return text.substr(1, text.size() - 2);
  return text;
}

bool worth_retrying(int status) { return status >= 500 || status == 408 || status == 429; }

// Everything one download knows; its methods are the steps.
class Download {
 public:
  Download(Http& http, const DownloadRequest& request)
      : http_(http),
        request_(request),
        part_path_(request.path + ".part"),
        state_path_(part_path_ + ".json"),
        sha256_(request.sha256),
        total_(request.size) {}

  Result<DownloadResult> run();

 private:
  enum class Outcome { kWhole, kTryAgain, kTryAgainAtOnce };

  Status open_part();
  Status save_state() const;
  Status start_over();
  Status fetch_all();
  Result<Outcome> fetch_once();
  Status take_head(const HttpHead& head);
  Status take_body(std::span<const std::byte> bytes);
  Status check_space() const;
  Result<Outcome> judge(const HttpResult& result);
  Status refused(const HttpHead& head) const;
  Status pause(double seconds) const;
  Result<std::string> digest();
  Result<DownloadResult> fetch_checked();
  bool keep_going() const { return !request_.progress || request_.progress(have_, total_.value_or(0)); }
  void notice(const std::string& text) const {
    if (request_.notice) request_.notice(text);
  }

  Http& http_;
  const DownloadRequest& request_;
  const std::string part_path_;
  const std::string state_path_;
  sys::File part_;
  uint64_t have_ = 0;  // bytes in the part
  uint64_t resumed_ = 0;
  std::string etag_;  // of the version that the part's bytes belong to; empty: unknown
  std::string sha256_;
  std::optional<uint64_t> total_;
  std::string reason_;  // why the last try was not the last
  bool unresolved_ = false;
  Sha256 hash_;  // of the first `hashed_` bytes; what an earlier call fetched is not among them
  uint64_t hashed_ = 0;
};

Status Download::open_part() {
  STOKE_ASSIGN(part_, sys::File::open_write(part_path_));
  if (flock(part_.fd(), LOCK_EX | LOCK_NB) != 0) {
    return Status(Code::kInvalid, fmt::format("{}: another stoke is fetching it", part_path_));
  }
  STOKE_ASSIGN(have_, part_.size());
  const Result<std::string> text = sys::read_file(state_path_);
  const Json state = Json::parse(text.ok() ? *text : "", nullptr, false);
  STOKE_TRY(hash_.reset());
  const bool ours = state.is_object() && state.value("url", Json()) == request_.url;
  if (ours && state.contains("etag") && state["etag"].is_string()) etag_ = state["etag"];
  if (have_ > 0 && !ours) STOKE_TRY(start_over());
  resumed_ = have_;
  return ok_status();
}

Status Download::save_state() const {
  const Json state = {{"url", request_.url}, {"etag", etag_}};
  return sys::write_file_atomic(state_path_, state.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Status Download::start_over() {
  have_ = 0;
  resumed_ = 0;
  etag_.clear();
  hashed_ = 0;
  STOKE_TRY(hash_.reset());
  return part_.truncate(0);
}

Status Download::check_space() const {
  if (!total_ || *total_ <= have_) return ok_status();
  STOKE_ASSIGN(const uint64_t free, sys::free_space(request_.path));
  const uint64_t needed = *total_ - have_ + kSpaceMargin;
  if (free >= needed) return ok_status();
  return Status(Code::kNoSpace, fmt::format("{}: {} bytes are needed, {} are free; make room or set STOKE_MODELS to a "
                                            "folder on another disk",
                                            request_.path, needed, free));
}

// The server's answer decides where the body's bytes go, before the first of them comes.
Status Download::take_head(const HttpHead& head) {
  if (head.status != kOk && head.status != kPartial) return ok_status();
  const auto linked = head.linked.find("x-linked-etag");
  if (sha256_.empty() && linked != head.linked.end()) {
    const Result<std::string> sha256 = parse_sha256(quoted_text(linked->second));
    if (sha256.ok()) sha256_ = *sha256;
  }
  const std::string etag = head.header("etag");
  const ContentRange range = parse_content_range(head.header("content-range"));
  if (head.status == kPartial) {
    if (range.begin != have_ || (!etag_.empty() && !etag.empty() && etag != etag_)) {
      STOKE_TRY(start_over());
      return Status(Code::kCorrupt, "");  // what comes is not what was asked for: judged by fetch_once()
    }
    if (range.total) total_ = range.total;
    return check_space();
  }
  STOKE_TRY(start_over());  // the whole file comes: the range was ignored, or there is a new version
  if (!request_.size) total_ = to_number(head.header("content-length"));
  STOKE_TRY(check_space());
  etag_ = etag.starts_with("W/") ? "" : etag;  // a weak one does not promise the same bytes
  return save_state();
}

Status Download::take_body(std::span<const std::byte> bytes) {
  if (total_ && have_ + bytes.size() > *total_) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: more bytes come than the {} there should be", request_.url, *total_));
  }
  STOKE_TRY(part_.pwrite_full(bytes.data(), bytes.size(), have_));
  if (hashed_ == have_) {
    STOKE_TRY(hash_.add(bytes));
    hashed_ += bytes.size();
  }
  have_ += bytes.size();
  return keep_going() ? ok_status() : Status(Code::kCancelled, "stopped; the same command goes on from here");
}

Status Download::refused(const HttpHead& head) const {
  const int status = head.status;
  if (status == 401 || status == 403) {
    return Status(Code::kIo, fmt::format("{}: the server refuses ({}); a gated model needs its licence accepted and "
                                         "HF_TOKEN set",
                                         request_.url, status));
  }
  if (status == 404 || status == 410) {
    return Status(Code::kNotFound, fmt::format("{}: the server has no such file ({})", request_.url, status));
  }
  return Status(Code::kIo, fmt::format("{}: the server answers {}", request_.url, status));
}

Result<Download::Outcome> Download::judge(const HttpResult& result) {
  const int status = result.head.status;
  if (status == kRangeNotSatisfiable) {
    const ContentRange range = parse_content_range(result.head.header("content-range"));
    if (range.total == have_ && have_ > 0) return Outcome::kWhole;
    if (have_ == 0) return refused(result.head);
    reason_ = "the file on the server is shorter than what is here";
    STOKE_TRY(start_over());
    return Outcome::kTryAgainAtOnce;
  }
  unresolved_ = result.unresolved;
  if (result.dropped) {
    reason_ = result.unresolved ? result.drop_reason : fmt::format("connection lost ({})", result.drop_reason);
    return Outcome::kTryAgain;
  }
  if (worth_retrying(status)) {
    reason_ = fmt::format("the server answers {}", status);
    return Outcome::kTryAgain;
  }
  if (status != kOk && status != kPartial) return refused(result.head);
  if (total_ && have_ < *total_) {
    reason_ = fmt::format("the connection ended after {} of {} bytes", have_, *total_);
    return Outcome::kTryAgain;
  }
  return Outcome::kWhole;
}

Result<Download::Outcome> Download::fetch_once() {
  HttpRequest get;
  get.url = request_.url;
  if (!request_.token.empty()) get.headers.push_back("Authorization: Bearer " + request_.token);
  // Without an ETag only a checksum can tell whether the rest fits the beginning.
  if (have_ > 0 && etag_.empty() && sha256_.empty()) STOKE_TRY(start_over());
  const bool ranged = have_ > 0;
  if (ranged) get.headers.push_back(fmt::format("Range: bytes={}-", have_));
  if (ranged && !etag_.empty()) get.headers.push_back("If-Range: " + etag_);
  get.on_head = [this](const HttpHead& head) { return take_head(head); };
  get.on_body = [this](std::span<const std::byte> bytes) { return take_body(bytes); };
  get.cancelled = [this] { return !keep_going(); };
  const Result<HttpResult> result = http_.get(get);
  if (result.ok()) return judge(*result);
  if (result.status().code() == Code::kCorrupt && result.status().message().empty()) {
    reason_ = "the server has another version by now";
    return Outcome::kTryAgain;
  }
  return result.status();
}

Status Download::pause(double seconds) const {
  for (double left = seconds; left > 0; left -= kPauseSliceS) {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left, kPauseSliceS)));
    if (!keep_going()) return Status(Code::kCancelled, "stopped; the same command goes on from here");
  }
  return ok_status();
}

Status Download::fetch_all() {
  int tries = 0;
  for (;;) {
    const uint64_t before = have_;
    STOKE_ASSIGN(const Outcome outcome, fetch_once());
    if (outcome == Outcome::kWhole) return ok_status();
    if (have_ > before) tries = 0;
    if (++tries > (unresolved_ ? std::min(kUnresolvedRetries, request_.retries) : request_.retries)) {
      return Status(Code::kIo,
                    fmt::format("{}: {}; gave up after {} {}{}", request_.url, reason_, tries,
                                tries == 1 ? "try" : "tries", have_ > 0 ? ", the same command goes on from here" : ""));
    }
    const double seconds = outcome == Outcome::kTryAgainAtOnce
                               ? 0
                               : std::min(kPauseMaxS, request_.first_pause_s * static_cast<double>(1 << (tries - 1)));
    notice(fmt::format("{}; trying again in {:.3g} s", reason_, seconds));
    STOKE_TRY(pause(seconds));
  }
}

// Of what came in this call nothing is read again.
Result<std::string> Download::digest() {
  if (hashed_ == have_) return hash_.finish();
  notice("checking the file's SHA-256");
  return sha256_file(part_path_, [this](uint64_t) { return keep_going(); });
}

Result<DownloadResult> Download::fetch_checked() {
  std::string sha256;
  for (int tries = 1;; ++tries) {
    STOKE_TRY(fetch_all());
    STOKE_TRY(part_.sync());
    STOKE_ASSIGN(sha256, digest());
    if (sha256_.empty() || sha256 == sha256_) break;
    reason_ = fmt::format("SHA-256 is {}, should be {}", sha256, sha256_);
    STOKE_TRY(start_over());
    if (tries == kChecksumTries) {
      return Status(Code::kCorrupt, fmt::format("{}: {}; nothing was kept", request_.url, reason_));
    }
    notice(reason_ + "; fetching it once more");
  }
  STOKE_TRY(sys::rename_durable(part_path_, request_.path));
  unlink(state_path_.c_str());
  return DownloadResult{have_, resumed_, sha256, !sha256_.empty()};
}

Result<DownloadResult> Download::run() {
  STOKE_TRY(open_part());
  Result<DownloadResult> result = fetch_checked();
  if (!result.ok() && have_ == 0) {
    unlink(part_path_.c_str());
    unlink(state_path_.c_str());
  }
  return result;
}

}  // namespace

Result<DownloadResult> download(Http& http, const DownloadRequest& request) { return Download(http, request).run(); }

}  // namespace stoke::fetch
