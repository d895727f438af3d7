#include "formats/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "formats/gguf_meta.h"
#include "formats/output_file.h"

namespace stoke::formats {
namespace {

constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kVersion = 3;

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_string(std::string* out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out->append(text);
}

void put_key(std::string* out, std::string_view key, GgufType type) {
  put_string(out, key);
  put(out, type);
}

void put_array_head(std::string* out, std::string_view key, GgufType type, size_t count) {
  put_key(out, key, GgufType::kArray);
  put(out, type);
  put(out, uint64_t{count});
}

bool fits_i32(int64_t number) { return number >= INT32_MIN && number <= INT32_MAX; }
// Not where it would overflow, which is undefined. A NaN is kept as a double.
bool fits_f32(double real) {
  return std::abs(real) <= static_cast<double>(FLT_MAX) && static_cast<double>(static_cast<float>(real)) == real;
}

int64_t product(std::span<const int64_t> shape) {
  int64_t elems = 1;
  for (const int64_t dim : shape) elems *= dim;
  return elems;
}

}  // namespace

GgufHeader::GgufHeader(uint64_t alignment) : alignment_(alignment) {
  CHECK(std::has_single_bit(alignment));
  if (alignment != kDefaultAlignment) set_u32("general.alignment", static_cast<uint32_t>(alignment));
}

void GgufHeader::set_u16(std::string_view key, uint16_t value) {
  put_key(&meta_, key, GgufType::kU16);
  put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_u32(std::string_view key, uint32_t value) {
  put_key(&meta_, key, GgufType::kU32);
  put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_i32(std::string_view key, int32_t value) {
  put_key(&meta_, key, GgufType::kI32);
  put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_u64(std::string_view key, uint64_t value) {
  put_key(&meta_, key, GgufType::kU64);
  put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_f32(std::string_view key, float value) {
  put_key(&meta_, key, GgufType::kF32);
  put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_bool(std::string_view key, bool value) {
  put_key(&meta_, key, GgufType::kBool);
  put(&meta_, static_cast<uint8_t>(value));
  ++keys_;
}

void GgufHeader::set_string(std::string_view key, std::string_view value) {
  put_key(&meta_, key, GgufType::kString);
  put_string(&meta_, value);
  ++keys_;
}

void GgufHeader::set_i32s(std::string_view key, std::span<const int32_t> values) {
  put_array_head(&meta_, key, GgufType::kI32, values.size());
  for (int32_t value : values) put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_f32s(std::string_view key, std::span<const float> values) {
  put_array_head(&meta_, key, GgufType::kF32, values.size());
  for (float value : values) put(&meta_, value);
  ++keys_;
}

void GgufHeader::set_strings(std::string_view key, std::span<const std::string> values) {
  put_array_head(&meta_, key, GgufType::kString, values.size());
  for (const std::string& value : values) put_string(&meta_, value);
  ++keys_;
}

void GgufHeader::set_array(std::string_view key, const MetaArray& array) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&array)) return set_strings(key, *texts);
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&array)) {
    const bool narrow = std::all_of(numbers->begin(), numbers->end(), [](int64_t n) { return fits_i32(n); });
    put_array_head(&meta_, key, narrow ? GgufType::kI32 : GgufType::kI64, numbers->size());
    for (const int64_t number : *numbers) {
      if (narrow) {
        put(&meta_, static_cast<int32_t>(number));
      } else {
        put(&meta_, number);
      }
    }
  } else if (const auto* reals = std::get_if<std::vector<double>>(&array)) {
    const bool narrow = std::all_of(reals->begin(), reals->end(), [](double r) { return fits_f32(r); });
    put_array_head(&meta_, key, narrow ? GgufType::kF32 : GgufType::kF64, reals->size());
    for (const double real : *reals) {
      if (narrow) {
        put(&meta_, static_cast<float>(real));
      } else {
        put(&meta_, real);
      }
    }
  } else {
    const auto& flags = std::get<std::vector<bool>>(array);
    put_array_head(&meta_, key, GgufType::kBool, flags.size());
    for (const bool flag : flags) put(&meta_, static_cast<uint8_t>(flag));
  }
  ++keys_;
}

void GgufHeader::set_value(std::string_view key, const MetaValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return set_string(key, *text);
  if (const auto* flag = std::get_if<bool>(&value)) return set_bool(key, *flag);
  if (const auto* array = std::get_if<MetaArray>(&value)) return set_array(key, *array);
  if (const auto* real = std::get_if<double>(&value)) {
    if (fits_f32(*real)) return set_f32(key, static_cast<float>(*real));
    put_key(&meta_, key, GgufType::kF64);
    put(&meta_, *real);
    ++keys_;
    return;
  }
  const int64_t number = std::get<int64_t>(value);
  if (number >= 0 && number <= int64_t{UINT32_MAX}) return set_u32(key, static_cast<uint32_t>(number));
  if (fits_i32(number)) return set_i32(key, static_cast<int32_t>(number));
  put_key(&meta_, key, GgufType::kI64);
  put(&meta_, number);
  ++keys_;
}

void GgufHeader::add_entry(std::string_view name, uint32_t ggml_id, std::span<const int64_t> shape, uint64_t bytes) {
  put_string(&table_, name);
  put(&table_, static_cast<uint32_t>(shape.size()));
  for (size_t i = shape.size(); i-- > 0;) put(&table_, static_cast<uint64_t>(shape[i]));
  put(&table_, ggml_id);
  put(&table_, data_bytes_);
  tensor_bytes_.push_back(bytes);
  data_bytes_ += aligned(bytes);
}

void GgufHeader::add_tensor(std::string_view name, DType type, std::span<const int64_t> shape) {
  CHECK(!shape.empty());
  CHECK(shape.back() % info(type).block_elems == 0);
  add_entry(name, info(type).ggml_id, shape, row_bytes(type, product(shape)));
}

void GgufHeader::add_raw(std::string_view name, const RawType& type, std::span<const int64_t> shape) {
  CHECK(!shape.empty());
  add_entry(name, type.ggml_id, shape, static_cast<uint64_t>(product(shape)) * type.elem_bytes);
}

std::string GgufHeader::bytes() const {
  std::string out = "GGUF";
  put(&out, kVersion);
  put(&out, uint64_t{tensor_bytes_.size()});
  put(&out, keys_);
  out += meta_;
  out += table_;
  out.resize(aligned(out.size()), '\0');
  return out;
}

GgufWriter::GgufWriter(std::unique_ptr<OutputFile> file, GgufHeader header)
    : file_(std::move(file)), header_(std::move(header)) {}

GgufWriter::~GgufWriter() = default;

Result<std::unique_ptr<GgufWriter>> GgufWriter::create(const std::string& path, GgufHeader header) {
  std::string head = header.bytes();
  STOKE_ASSIGN(auto file, OutputFile::create(path, head.size() + header.data_bytes()));
  STOKE_TRY(file->append(std::as_bytes(std::span(head))));
  return std::unique_ptr<GgufWriter>(new GgufWriter(std::move(file), std::move(header)));
}

Status GgufWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    CHECK(tensor_ < header_.tensor_bytes().size());
    uint64_t left = header_.tensor_bytes()[tensor_] - written_;
    size_t take = std::min<uint64_t>(left, bytes.size());
    STOKE_TRY(file_->append(bytes.first(take)));
    bytes = bytes.subspan(take);
    written_ += take;
    if (take == left) STOKE_TRY(end_tensor());
  }
  return ok_status();
}

Status GgufWriter::end_tensor() {
  std::string padding(header_.aligned(written_) - written_, '\0');
  ++tensor_;
  written_ = 0;
  return file_->append(std::as_bytes(std::span(padding)));
}

Status GgufWriter::finish() {
  CHECK(tensor_ == header_.tensor_bytes().size() && written_ == 0);
  return file_->finish();
}

}  // namespace stoke::formats
