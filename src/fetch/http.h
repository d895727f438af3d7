// One HTTP GET over libcurl, streamed: redirects followed, headers of every hop collected, nothing kept in memory.
//
// Thread role: one thread an Http. Ownership: an Http owns its connection, which later requests to the same host reuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace stoke::fetch {

struct HttpHead {
  int status = 0;  // of the last hop
  // Names in lower case. Of the last hop; `linked` holds x-linked-* of any hop, which hubs send with a redirect.
  std::map<std::string, std::string> headers;
  std::map<std::string, std::string> linked;

  std::string header(const std::string& name) const;  // empty when absent
};

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"; authorization is not sent on to other hosts
  // Called once when the last hop's headers are complete and before any body; a failure ends the transfer.
  std::function<Status(const HttpHead&)> on_head;
  // Called with pieces of a 2xx body; a failure ends the transfer.
  std::function<Status(std::span<const std::byte>)> on_body;
  std::function<bool()> cancelled;  // polled; may be empty
};

struct HttpResult {
  HttpHead head;
  // The connection was refused, dropped or too slow: trying again may help.
  bool dropped = false;
  std::string drop_reason;
  bool unresolved = false;  // dropped, for want of an address: the name is wrong, or nothing can be reached at all
};

class Http {
 public:
  // kUnsupported in builds without libcurl.
  static Result<Http> open();
  Http(Http&&) noexcept;
  Http& operator=(Http&&) noexcept;
  ~Http();

  // Failures: what a callback failed with, kCancelled, kInvalid (no such URL). Dropped connections and error statuses
  // are results, for the caller to judge.
  Result<HttpResult> get(const HttpRequest& request);

 private:
  struct Handle;
  explicit Http(std::unique_ptr<Handle> handle);
  std::unique_ptr<Handle> handle_;
};

}  // namespace stoke::fetch
