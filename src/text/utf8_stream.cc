#include "text/utf8_stream.h"

#include <algorithm>

#include "text/tokenizer.h"

namespace stoke::text {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// How much of `text` is one character, or can begin one.
struct Sequence {
  size_t bytes;   // at least 1
  bool complete;  // a whole character
  bool cut;       // the text ends before it could be one
};

// What the byte after a lead byte may be: narrower than a continuation for the leads that could spell too long,
// surrogate or too large code points.
bool second_byte_fits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

size_t length_by_lead(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

Sequence first_sequence(std::string_view text) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t length = length_by_lead(at(0));
  if (length == 0) return {1, false, false};
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    bool fits = i == 1 ? second_byte_fits(at(0), at(1)) : (at(i) & 0xC0) == 0x80;
    if (!fits) return {i, false, false};
  }
  return {length, true, false};
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  std::string joined = held_;
  joined += bytes;
  held_.clear();
  std::string out;
  out.reserve(joined.size());
  std::string_view rest = joined;
  while (!rest.empty()) {
    Sequence sequence = first_sequence(rest);
    if (sequence.cut) {
      held_ = rest;
      break;
    }
    out += sequence.complete ? rest.substr(0, sequence.bytes) : kReplacement;
    rest.remove_prefix(sequence.bytes);
  }
  return out;
}

std::string Utf8Stream::finish() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacement);
}

std::string valid_utf8(std::string_view text) {
  Utf8Stream stream;
  std::string out = stream.push(text);
  return out + stream.finish();
}

TokenStream::TokenStream(const Tokenizer& tokenizer, bool skip_special, bool at_start)
    : tokenizer_(tokenizer), skip_special_(skip_special), strip_next_(at_start && tokenizer.strips_leading_space()) {}

std::string TokenStream::push(int32_t token) {
  if (skip_special_ && tokenizer_.is_special(token)) return {};
  std::string bytes = tokenizer_.token_bytes(token);
  bool strip = strip_next_ && bytes.starts_with(' ');
  strip_next_ = false;
  return stream_.push(std::string_view(bytes).substr(strip ? 1 : 0));
}

}  // namespace stoke::text
