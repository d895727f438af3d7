#include "sys/proc_text.h"

#include <charconv>

#include "sys/files.h"

namespace stoke::sys {
namespace {

constexpr uint64_t kProcTextMax = 4 << 20;
constexpr int kCpusMax = 1 << 16;

std::string_view skip_blanks(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t:");
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

}  // namespace

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::optional<std::string> read_text(const std::string& path) {
  Result<std::string> text = read_file(path, kProcTextMax);
  if (!text.ok()) return std::nullopt;
  while (!text->empty() && (text->back() == '\n' || text->back() == '\0')) text->pop_back();
  return std::move(*text);
}

std::optional<uint64_t> read_number(const std::string& path) {
  const std::optional<std::string> text = read_text(path);
  return text ? parse_number(*text) : std::nullopt;
}

std::optional<uint64_t> find_number(std::string_view text, std::string_view key) {
  for (std::string_view line : split(text, '\n')) {
    if (line.substr(0, key.size()) != key || line.size() == key.size()) continue;
    const char next = line[key.size()];
    if (next != ':' && next != ' ' && next != '\t') continue;
    const std::string_view rest = skip_blanks(line.substr(key.size()));
    const std::optional<uint64_t> value = parse_number(rest);
    if (!value) return std::nullopt;
    return rest.ends_with(" kB") ? *value * 1024 : *value;
  }
  return std::nullopt;
}

std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  for (std::string_view part : split(text, ',')) {
    const size_t dash = part.find('-');
    const std::optional<uint64_t> first = parse_number(part.substr(0, dash));
    const std::optional<uint64_t> last = dash == std::string_view::npos ? first : parse_number(part.substr(dash + 1));
    if (!first || !last || *last >= kCpusMax) return cpus;
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<int>(cpu));
  }
  return cpus;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

}  // namespace stoke::sys
