// Fetches one file: resumable, checksummed, atomic.
//
// Bytes gather in PATH.part; beside it PATH.part.json remembers which version of the file (its ETag) they belong to. A
// later call goes on where the bytes end, unless the server has another version by then. The file gets its name only
// when it is whole and its checksum is right. Dropped connections and 5xx answers are tried again with growing pauses;
// the count of tries starts anew whenever bytes came. A name without an address is tried again once. Where no byte came
// nothing is left behind.
// Thread role: one thread a call. Ownership: values.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/status.h"
#include "fetch/http.h"

namespace stoke::fetch {

struct DownloadRequest {
  std::string url;
  std::string path;    // where the file will be; its folder exists
  std::string sha256;  // lower case; empty: taken from the hub's X-Linked-ETag where it sends one
  std::optional<uint64_t> size;
  std::string token;         // sent as a bearer token; empty: none
  int retries = 8;           // tries in a row without a single byte
  double first_pause_s = 1;  // doubles up to 30 s
  // Told now and then; total is 0 while unknown. Returning false stops with kCancelled.
  std::function<bool(uint64_t done, uint64_t total)> progress;
  // One line on what goes on besides: "connection lost (...); trying again in 2 s".
  std::function<void(const std::string&)> notice;
};

struct DownloadResult {
  uint64_t bytes = 0;
  uint64_t bytes_resumed = 0;  // of these were there from an earlier call
  std::string sha256;
  bool verified = false;  // somebody named that checksum; otherwise only the length was checked
};

// kNotFound (404), kNoSpace before anything is written, kCorrupt when the checksum is wrong twice, kIo otherwise.
Result<DownloadResult> download(Http& http, const DownloadRequest& request);

}  // namespace stoke::fetch
