#include "fetch/http.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace stoke::fetch {
namespace {

constexpr long kConnectTimeoutS = 20;
// A connection that brings less than this for so long counts as dropped.
constexpr long kLowSpeedBytesPerS = 16;
constexpr long kLowSpeedS = 30;
constexpr long kRedirectsMax = 8;
constexpr long kHttpOk = 200;
constexpr long kHttpRedirect = 300;

std::string trimmed_lower(std::string_view text, bool lower) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  std::string out(text);
  if (lower) {
    for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

// What the callbacks of one transfer share.
struct Transfer {
  CURL* curl;
  const HttpRequest& request;
  HttpHead head;
  bool head_told = false;
  Status failure;

  // Tells the head before the first body byte, or after the transfer when there was none.
  bool tell_head() {
    if (head_told) return failure.ok();
    head_told = true;
    if (request.on_head) failure = request.on_head(head);
    return failure.ok();
  }
};

size_t on_header(char* text, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(text, size * count);
  if (line.starts_with("HTTP/")) {  // a new hop
    transfer.head.headers.clear();
    const size_t blank = line.find(' ');
    transfer.head.status = blank == std::string_view::npos ? 0 : std::atoi(std::string(line.substr(blank)).c_str());
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return line.size();
  const std::string name = trimmed_lower(line.substr(0, colon), true);
  const std::string value = trimmed_lower(line.substr(colon + 1), false);
  transfer.head.headers[name] = value;
  if (name.starts_with("x-linked-")) transfer.head.linked[name] = value;
  return line.size();
}

size_t on_write(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.tell_head()) return 0;
  if (transfer.head.status < kHttpOk || transfer.head.status >= kHttpRedirect) return size * count;  // an error page
  if (!transfer.request.on_body) return size * count;
  transfer.failure = transfer.request.on_body(std::as_bytes(std::span(data, size * count)));
  return transfer.failure.ok() ? size * count : 0;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& transfer = *static_cast<Transfer*>(user);
  return transfer.request.cancelled && transfer.request.cancelled() ? 1 : 0;
}

bool is_request_wrong(CURLcode code) { return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL; }

struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

}  // namespace

std::string HttpHead::header(const std::string& name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? "" : it->second;
}

struct Http::Handle {
  CURL* curl = nullptr;
  ~Handle() { curl_easy_cleanup(curl); }
};

Http::Http(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
Http::Http(Http&&) noexcept = default;
Http& Http::operator=(Http&&) noexcept = default;
Http::~Http() = default;

Result<Http> Http::open() {
  auto handle = std::make_unique<Handle>();
  handle->curl = curl_easy_init();
  if (handle->curl == nullptr) return Status(Code::kNoMemory, "libcurl does not start");
  return Http(std::move(handle));
}

Result<HttpResult> Http::get(const HttpRequest& request) {
  CURL* const curl = handle_->curl;
  curl_easy_reset(curl);
  Transfer transfer = {curl, request, {}, false, {}};
  std::unique_ptr<curl_slist, ListDeleter> headers;
  for (const std::string& header : request.headers) {
    headers.reset(curl_slist_append(headers.release(), header.c_str()));
  }
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "stoke");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, kRedirectsMax);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutS);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, kLowSpeedBytesPerS);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kLowSpeedS);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_write);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  const CURLcode code = curl_easy_perform(curl);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  if (!transfer.failure.ok()) return transfer.failure;
  if (code == CURLE_ABORTED_BY_CALLBACK) return Status(Code::kCancelled, "stopped; the same command goes on from here");
  const std::string reason = error[0] != '\0' ? error : curl_easy_strerror(code);
  if (is_request_wrong(code)) return Status(Code::kInvalid, fmt::format("{}: {}", request.url, reason));
  if (code == CURLE_OK && !transfer.tell_head()) return transfer.failure;
  const bool unresolved = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY;
  return HttpResult{transfer.head, code != CURLE_OK, code != CURLE_OK ? reason : "", unresolved};
}

}  // namespace stoke::fetch
