#include "formats/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace stoke::formats {
namespace {

// Counts nesting and remembers where parsing stopped; builds nothing.
class DepthChecker {
 public:
  explicit DepthChecker(int depth_max) : depth_max_(depth_max) {}

  bool null() { return depth_ > 0; }
  bool boolean(bool) { return depth_ > 0; }
  bool number_integer(int64_t) { return depth_ > 0; }
  bool number_unsigned(uint64_t) { return depth_ > 0; }
  bool number_float(double, const std::string&) { return depth_ > 0; }
  bool string(std::string&) { return depth_ > 0; }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool key(std::string&) { return true; }
  bool start_object(size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool start_array(size_t) { return depth_ > 0 && enter(); }
  bool end_array() { return leave(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    position_ = position;
    return false;
  }

  size_t position() const { return position_; }
  bool too_deep() const { return depth_ > depth_max_; }

 private:
  bool enter() { return ++depth_ <= depth_max_; }
  bool leave() {
    --depth_;
    return true;
  }

  int depth_max_;
  int depth_ = 0;
  size_t position_ = 0;
};

}  // namespace

Status check_json_object(const std::string& path, std::string_view text, int depth_max) {
  DepthChecker checker(depth_max);
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &checker)) return ok_status();
  if (checker.too_deep()) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: JSON nested more than {} deep: not a file stoke reads", path, depth_max));
  }
  if (checker.position() == 0) return Status(Code::kCorrupt, fmt::format("{}: not a JSON object", path));
  return Status(Code::kCorrupt, fmt::format("{}: byte {}: not valid JSON: the file is corrupt; fetch it again", path,
                                            checker.position()));
}

Result<std::string> read_json_object(const FileOpener& files, const std::string& path, uint64_t bytes_max) {
  STOKE_ASSIGN(std::string text, read_text(files, path, bytes_max));
  STOKE_TRY(check_json_object(path, text));
  return text;
}

}  // namespace stoke::formats
