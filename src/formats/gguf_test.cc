// GGUF: what the writer makes, the reader opens; what no writer makes, it refuses in one line.
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "formats/gguf_meta.h"
#include "formats/gguf_writer.h"

namespace stoke::formats {
namespace {

constexpr const char* kPath = "model.gguf";

Result<ModelFile> open_bytes(std::string bytes) {
  MemoryFiles files;
  files.add(kPath, std::move(bytes));
  return open_gguf(files, kPath);
}

void append_tensors(const GgufHeader& header, std::string* bytes) { bytes->append(header.data_bytes(), '\x11'); }

std::string file_of(const GgufHeader& header) {
  std::string bytes = header.bytes();
  append_tensors(header, &bytes);
  return bytes;
}

// Opens `bytes` and expects one line that contains every one of `wanted`.
void expect_refused(std::string bytes, Code code, const std::vector<std::string>& wanted) {
  Result<ModelFile> model = open_bytes(std::move(bytes));
  ASSERT_FALSE(model.ok());
  const std::string& message = model.status().message();
  EXPECT_EQ(model.status().code(), code) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_NE(message.find(kPath), std::string::npos) << message;
  for (const std::string& text : wanted) EXPECT_NE(message.find(text), std::string::npos) << message;
}

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_string(std::string* out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out->append(text);
}

// A header written by hand: counts as given, then `rest`.
std::string raw(uint64_t tensors, uint64_t keys, const std::string& rest, uint32_t version = 3) {
  std::string out = "GGUF";
  put(&out, version);
  put(&out, tensors);
  put(&out, keys);
  return out + rest;
}

// One table entry: dims fastest first, as the file has them.
std::string entry(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
  std::string out;
  put_string(&out, name);
  put(&out, static_cast<uint32_t>(dims.size()));
  for (uint64_t dim : dims) put(&out, dim);
  put(&out, type);
  put(&out, offset);
  return out;
}

std::string key_of(std::string_view key, GgufType type) {
  std::string out;
  put_string(&out, key);
  put(&out, type);
  return out;
}

TEST(Gguf, Open_ReadsEveryKindOfMetadata) {
  GgufHeader header;
  header.set_string("general.architecture", "llama");
  header.set_u16("u16", 65535);
  header.set_u32("u32", 4000000000U);
  header.set_i32("i32", -7);
  header.set_u64("u64", uint64_t{1} << 40);
  header.set_u64("huge", UINT64_MAX);
  header.set_f32("f32", 0.5F);
  header.set_bool("yes", true);
  const std::vector<std::string> texts = {"a", "", "c\n"};
  header.set_strings("texts", texts);
  const std::vector<int32_t> numbers = {1, -2};
  header.set_i32s("numbers", numbers);
  header.set_f32s("none", {});
  Result<ModelFile> model = open_bytes(file_of(header));
  ASSERT_TRUE(model.ok()) << model.status().message();
  std::string text;
  int64_t integer = 0;
  double number = 0;
  bool yes = false;
  EXPECT_TRUE(model->get("general.architecture", &text) && text == "llama");
  EXPECT_TRUE(model->get("u16", &integer) && integer == 65535);
  EXPECT_TRUE(model->get("u32", &integer) && integer == 4000000000);
  EXPECT_TRUE(model->get("i32", &integer) && integer == -7);
  EXPECT_TRUE(model->get("u64", &integer) && integer == int64_t{1} << 40);
  EXPECT_FALSE(model->get("huge", &integer));
  EXPECT_TRUE(model->get("huge", &number) && number == 0x1p64);
  EXPECT_TRUE(model->get("f32", &number) && number == 0.5);
  EXPECT_TRUE(model->get("i32", &number) && number == -7);
  EXPECT_TRUE(model->get("yes", &yes) && yes);
  EXPECT_FALSE(model->get("yes", &text));
  EXPECT_FALSE(model->get("absent", &text));
  EXPECT_EQ(std::get<std::vector<std::string>>(*model->array("texts")), texts);
  EXPECT_EQ(std::get<std::vector<int64_t>>(*model->array("numbers")), (std::vector<int64_t>{1, -2}));
  EXPECT_TRUE(std::get<std::vector<double>>(*model->array("none")).empty());
  EXPECT_EQ(model->array("yes"), nullptr);
}

TEST(Gguf, Open_ReadsNarrowTypesAndVersion2) {
  std::string rest = key_of("u8", GgufType::kU8) + '\xff';
  rest += key_of("i8", GgufType::kI8) + '\xff';
  rest += key_of("i16", GgufType::kI16) + "\xfe\xff";
  rest += key_of("f64", GgufType::kF64);
  put(&rest, 0.25);
  rest += key_of("i64", GgufType::kI64);
  put(&rest, int64_t{-9});
  rest += key_of("flags", GgufType::kArray);
  put(&rest, GgufType::kBool);
  put(&rest, uint64_t{2});
  rest += std::string("\x01\x00", 2);
  Result<ModelFile> model = open_bytes(raw(0, 6, rest, 2));
  ASSERT_TRUE(model.ok()) << model.status().message();
  int64_t integer = 0;
  double number = 0;
  EXPECT_TRUE(model->get("u8", &integer) && integer == 255);
  EXPECT_TRUE(model->get("i8", &integer) && integer == -1);
  EXPECT_TRUE(model->get("i16", &integer) && integer == -2);
  EXPECT_TRUE(model->get("i64", &integer) && integer == -9);
  EXPECT_TRUE(model->get("f64", &number) && number == 0.25);
  EXPECT_EQ(std::get<std::vector<bool>>(*model->array("flags")), (std::vector<bool>{true, false}));
}

TEST(Gguf, Open_PlacesTensorsOfEveryType) {
  for (uint64_t alignment : {uint64_t{32}, uint64_t{4096}}) {
    GgufHeader header(alignment);
    const std::vector<int64_t> shape = {3, 2, 256};
    for (const DTypeInfo& type : all_dtypes()) header.add_tensor(std::string("t.") + type.name, type.type, shape);
    std::string bytes = file_of(header);
    Result<ModelFile> model = open_bytes(bytes);
    ASSERT_TRUE(model.ok()) << model.status().message();
    ASSERT_EQ(model->tensors.size(), all_dtypes().size());
    uint64_t next = header.bytes().size();
    for (const TensorEntry& tensor : model->tensors) {
      EXPECT_EQ(tensor.name, std::string("t.") + info(tensor.type).name);
      EXPECT_EQ(tensor.shape, shape);
      EXPECT_EQ(tensor.rows(), 6);
      EXPECT_EQ(tensor.cols(), 256);
      EXPECT_EQ(tensor.extent.offset, next);
      EXPECT_EQ(tensor.extent.bytes, 6 * row_bytes(tensor.type, 256));
      EXPECT_EQ(model->find(tensor.name), &tensor);
      next += header.aligned(tensor.extent.bytes);
    }
    EXPECT_EQ(next, bytes.size());
    EXPECT_EQ(model->find("absent"), nullptr);
  }
}

GgufHeader small_header() {
  GgufHeader header;
  header.set_string("general.architecture", "llama");
  const std::vector<std::string> tokens = {"one", "two"};
  header.set_strings("tokens", tokens);
  header.add_tensor("a", DType::kF32, std::vector<int64_t>{4, 8});
  header.add_tensor("b", DType::kQ4_0, std::vector<int64_t>{2, 32});
  return header;
}

TEST(Gguf, Open_RefusesEveryTruncation) {
  GgufHeader header = small_header();
  std::string bytes = file_of(header);
  size_t needed = bytes.size() - (header.aligned(36) - 36);  // the last tensor's padding may be absent
  for (size_t length = 0; length < needed; ++length) {
    EXPECT_FALSE(open_bytes(bytes.substr(0, length)).ok()) << length;
  }
  EXPECT_TRUE(open_bytes(bytes.substr(0, needed)).ok());
}

// Every single-byte change is refused or opens to extents inside the file; it never crashes.
TEST(Gguf, Open_SurvivesEveryByteChange) {
  std::string bytes = file_of(small_header());
  for (size_t at = 0; at < small_header().bytes().size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ 1 << bit);
      Result<ModelFile> model = open_bytes(changed);
      if (!model.ok()) continue;
      for (const TensorEntry& tensor : model->tensors) {
        EXPECT_LE(tensor.extent.offset + tensor.extent.bytes, bytes.size());
      }
    }
  }
}

TEST(Gguf, Open_RefusesForeignHeaders) {
  expect_refused("GGML1234", Code::kInvalid, {"not a GGUF file"});
  expect_refused(raw(0, 0, "", 1), Code::kUnsupported, {"version 1", "byte 4"});
  expect_refused(raw(0, 0, "", 0x03000000), Code::kUnsupported, {"big-endian"});
  expect_refused("", Code::kCorrupt, {"magic"});
}

TEST(Gguf, Open_RefusesImpossibleCounts) {
  expect_refused(raw(1000000, 0, std::string(64, '\0')), Code::kCorrupt, {"1000000 tensors", "131072"});
  expect_refused(raw(UINT64_MAX, 0, ""), Code::kCorrupt, {"tensors"});
  expect_refused(raw(0, UINT64_MAX, ""), Code::kCorrupt, {"metadata keys"});
  expect_refused(raw(0, 100, "too short for these"), Code::kCorrupt, {"100 metadata keys"});
  // A million entries that are really there.
  std::string table;
  for (int i = 0; i < 1000000; ++i) table += entry("t", {1}, 0, 0);
  expect_refused(raw(1000000, 0, table), Code::kCorrupt, {"1000000 tensors"});
}

TEST(Gguf, Open_RefusesBadMetadata) {
  std::string huge_key;
  put(&huge_key, UINT64_MAX);
  expect_refused(raw(0, 1, huge_key + std::string(32, 'x')), Code::kCorrupt, {"a metadata key", "byte 24"});
  std::string huge_text = key_of("k", GgufType::kString);
  put(&huge_text, uint64_t{1} << 62);
  expect_refused(raw(0, 1, huge_text), Code::kCorrupt, {"'k'"});
  std::string long_text = key_of("k", GgufType::kString);
  put(&long_text, uint64_t{1000});
  expect_refused(raw(0, 1, long_text), Code::kCorrupt, {"'k'", "1000"});
  std::string array = key_of("k", GgufType::kArray);
  put(&array, GgufType::kU8);
  put(&array, UINT64_MAX);
  expect_refused(raw(0, 1, array), Code::kCorrupt, {"'k'", "array"});
  std::string nested = key_of("k", GgufType::kArray);
  put(&nested, GgufType::kArray);
  put(&nested, uint64_t{1});
  expect_refused(raw(0, 1, nested), Code::kUnsupported, {"arrays inside arrays", "'k'"});
  expect_refused(raw(0, 1, key_of("k", static_cast<GgufType>(99)) + "12345678"), Code::kCorrupt, {"type 99", "'k'"});
  expect_refused(raw(0, 1, key_of("k", GgufType::kBool) + '\x02'), Code::kCorrupt, {"boolean is 2", "'k'"});
  std::string twice = key_of("k", GgufType::kU8) + '\x01';
  expect_refused(raw(0, 2, twice + twice), Code::kCorrupt, {"'k' is there twice"});
  std::string alignment = key_of("general.alignment", GgufType::kU32);
  put(&alignment, uint32_t{24});
  expect_refused(raw(0, 1, alignment), Code::kCorrupt, {"general.alignment", "24"});
}

TEST(Gguf, Open_RefusesBadTensors) {
  const std::string data(256, '\0');
  auto refused = [&](const std::string& table, uint64_t count, Code code, const std::vector<std::string>& wanted) {
    expect_refused(raw(count, 0, table + data), code, wanted);
  };
  constexpr uint32_t kF32Id = 0;
  constexpr uint32_t kQ4Id = 2;
  refused(entry("t", {0}, kF32Id, 0), 1, Code::kCorrupt, {"'t'", "below 1"});
  refused(entry("t", {UINT64_MAX}, kF32Id, 0), 1, Code::kCorrupt, {"'t'", "below 1"});
  refused(entry("t", {1U << 31, 1U << 31, 1U << 31}, kF32Id, 0), 1, Code::kCorrupt, {"'t'", "more elements"});
  refused(entry("t", {uint64_t{1} << 62}, kF32Id, 0), 1, Code::kCorrupt, {"'t'"});
  refused(entry("t", {33}, kQ4Id, 0), 1, Code::kCorrupt, {"'t'", "blocks of 32", "Q4_0"});
  refused(entry("t", {}, kF32Id, 0), 1, Code::kCorrupt, {"'t'", "0 dimensions"});
  refused(entry("t", {1, 1, 1, 1, 1}, kF32Id, 0), 1, Code::kCorrupt, {"'t'", "5 dimensions"});
  refused(entry("t", {32}, 16, 0), 1, Code::kUnsupported, {"'t'", "16", "IQ2_XXS"});
  refused(entry("t", {32}, 12345, 0), 1, Code::kUnsupported, {"'t'", "12345", "unknown"});
  refused(entry("t", {4}, kF32Id, 7), 1, Code::kCorrupt, {"'t'", "multiple"});
  refused(entry("t", {4}, kF32Id, UINT64_MAX - 31), 1, Code::kCorrupt, {"'t'"});
  refused(entry("t", {4}, kF32Id, 4096), 1, Code::kCorrupt, {"'t'", "cut short"});
  refused(entry("t", {4}, kF32Id, 0) + entry("t", {4}, kF32Id, 32), 2, Code::kCorrupt, {"'t'", "twice"});
  refused(entry("t", {16}, kF32Id, 0) + entry("u", {4}, kF32Id, 32), 2, Code::kCorrupt, {"'t'", "'u'", "overlap"});
  refused(entry(std::string(300, 'n'), {4}, kF32Id, 0), 1, Code::kCorrupt, {"name", "300"});
  refused(entry("bad\nname", {0}, kF32Id, 0), 1, Code::kCorrupt, {"bad\\x0aname"});
}

// Part `number` of `count`, holding one tensor.
std::string part(uint16_t number, uint16_t count, int32_t tensors, const char* tensor) {
  GgufHeader header;
  if (number == 0) header.set_string("general.architecture", "llama");
  header.set_u16("split.no", number);
  header.set_u16("split.count", count);
  header.set_i32("split.tensors.count", tensors);
  header.add_tensor(tensor, DType::kF32, std::vector<int64_t>{8});
  return file_of(header);
}

TEST(GgufSplit, Open_JoinsPartsWhicheverIsNamed) {
  MemoryFiles files;
  files.add("d/m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  files.add("d/m-00002-of-00002.gguf", part(1, 2, 2, "b"));
  for (const char* named : {"d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"}) {
    Result<ModelFile> model = open_gguf(files, named);
    ASSERT_TRUE(model.ok()) << model.status().message();
    ASSERT_EQ(model->files.size(), 2U);
    EXPECT_EQ(model->files[1], "d/m-00002-of-00002.gguf");
    ASSERT_EQ(model->tensors.size(), 2U);
    EXPECT_EQ(model->tensors[0].extent.file, 0U);
    EXPECT_EQ(model->tensors[1].name, "b");
    EXPECT_EQ(model->tensors[1].extent.file, 1U);
    std::string architecture;
    EXPECT_TRUE(model->get("general.architecture", &architecture));
  }
}

void expect_split_refused(const MemoryFiles& files, const std::string& named, Code code, const std::string& wanted) {
  Result<ModelFile> model = open_gguf(files, named);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), code);
  EXPECT_NE(model.status().message().find(wanted), std::string::npos) << model.status().message();
}

TEST(GgufSplit, Open_NamesWhatIsMissingOrMixedUp) {
  MemoryFiles lonely;
  lonely.add("m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  lonely.add("renamed.gguf", part(0, 2, 2, "a"));
  lonely.add("n-00001-of-00002.gguf", part(0, 2, 2, "a"));
  lonely.add("n-00002-of-00002.gguf", part(1, 2, 2, "a"));
  lonely.add("o-00001-of-00002.gguf", part(0, 2, 7, "a"));
  lonely.add("o-00002-of-00002.gguf", part(1, 2, 7, "b"));
  lonely.add("p-00001-of-00002.gguf", part(0, 2, 2, "a"));
  lonely.add("p-00002-of-00002.gguf", part(2, 3, 2, "b"));
  lonely.add("q-00006-of-00002.gguf", part(5, 2, 2, "a"));
  lonely.add("r-00001-of-65535.gguf", part(0, 65535, 2, "a"));
  expect_split_refused(lonely, "m-00001-of-00002.gguf", Code::kNotFound,
                       "m-00002-of-00002.gguf: part 2 of 2 is missing");
  expect_split_refused(lonely, "renamed.gguf", Code::kInvalid, "-00001-of-00002.gguf");
  expect_split_refused(lonely, "n-00001-of-00002.gguf", Code::kCorrupt, "twice");
  expect_split_refused(lonely, "o-00001-of-00002.gguf", Code::kCorrupt, "split.tensors.count");
  expect_split_refused(lonely, "p-00001-of-00002.gguf", Code::kCorrupt, "by its metadata part 3 of 3");
  expect_split_refused(lonely, "q-00006-of-00002.gguf", Code::kCorrupt, "part 6 of 2");
  expect_split_refused(lonely, "r-00001-of-65535.gguf", Code::kCorrupt, "65535");
}

}  // namespace
}  // namespace stoke::formats
