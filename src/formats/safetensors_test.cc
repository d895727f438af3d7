// Hugging Face folders: good ones open, hostile ones are refused in one line that names the file.
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stoke::formats {
namespace {

std::string shard(const std::string& header, size_t data_bytes) {
  uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + std::string(data_bytes, '\0');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& at) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + at + "}";
}

MemoryFiles folder_with(const std::string& weights) {
  MemoryFiles files;
  files.add("m/config.json", R"({"model_type":"llama"})");
  files.add("m/model.safetensors", weights);
  return files;
}

void expect_refused(const MemoryFiles& files, Code code, const std::vector<std::string>& wanted) {
  Result<ModelFile> model = open_safetensors(files, "m");
  ASSERT_FALSE(model.ok());
  const std::string& message = model.status().message();
  EXPECT_EQ(model.status().code(), code) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const std::string& text : wanted) EXPECT_NE(message.find(text), std::string::npos) << message;
}

TEST(Safetensors, Open_ReadsTensorsInFileOrder) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + tensor("late", "F16", "[2,3]", "[16,28]") + "," +
                       tensor("early", "F32", "[4]", "[0,16]") + "," + tensor("raw", "U8", "[2,2]", "[28,32]") + "," +
                       tensor("scalar", "BF16", "[]", "[32,34]") + "}";
  MemoryFiles files = folder_with(shard(header, 34));
  files.add("m/tokenizer.json", "{}");
  files.add("m/tokenizer_config.json", R"({"a":1})");
  files.add("m/generation_config.json", R"({"b":2})");
  files.add("m/chat_template.jinja", "{{ messages }}");
  Result<ModelFile> model = open_safetensors(files, "m/");
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_EQ(model->tensors.size(), 4U);
  uint64_t data = 8 + header.size();
  EXPECT_EQ(model->tensors[0].name, "early");
  EXPECT_EQ(model->tensors[0].extent.offset, data);
  EXPECT_EQ(model->tensors[1].type, DType::kF16);
  EXPECT_EQ(model->tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(model->tensors[1].extent.bytes, 12U);
  EXPECT_EQ(model->tensors[2].raw_type, "U8");
  EXPECT_EQ(model->tensors[3].type, DType::kBF16);
  EXPECT_EQ(model->kind, "safetensors");
  EXPECT_EQ(model->config_json, R"({"model_type":"llama"})");
  EXPECT_EQ(model->tokenizer_json, "m/tokenizer.json");
  EXPECT_EQ(model->tokenizer_config_json, R"({"a":1})");
  EXPECT_EQ(model->generation_config_json, R"({"b":2})");
  EXPECT_EQ(model->chat_template, "{{ messages }}");
}

MemoryFiles sharded() {
  MemoryFiles files;
  files.add("m/config.json", "{}");
  files.add("m/model.safetensors.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  files.add("m/1.safetensors", shard("{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 4));
  // A copy of "a" that the index does not point at is not read.
  files.add("m/2.safetensors",
            shard("{" + tensor("b", "F32", "[1]", "[0,4]") + "," + tensor("a", "F32", "[1]", "[4,8]") + "}", 8));
  return files;
}

TEST(Safetensors, Open_FollowsTheIndex) {
  Result<ModelFile> model = open_safetensors(sharded(), "m");
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_EQ(model->files.size(), 2U);
  ASSERT_EQ(model->tensors.size(), 2U);
  EXPECT_EQ(model->find("a")->extent.file, 0U);
  EXPECT_EQ(model->find("b")->extent.file, 1U);
}

TEST(Safetensors, Open_RefusesBadIndexes) {
  auto refused = [](const std::string& index, Code code, const std::vector<std::string>& wanted) {
    MemoryFiles files = sharded();
    files.add("m/model.safetensors.index.json", index);
    expect_refused(files, code, wanted);
  };
  refused(R"({"weight_map":{"a":"1.safetensors","b":"3.safetensors"}})", Code::kNotFound,
          {"m/3.safetensors", "missing"});
  refused(R"({"weight_map":{"c":"1.safetensors"}})", Code::kCorrupt, {"1.safetensors", "'c'"});
  refused(R"({"weight_map":{"a":"../1.safetensors"}})", Code::kCorrupt, {"'a'", "file name"});
  refused(R"({"weight_map":{"a":7}})", Code::kCorrupt, {"'a'"});
  refused(R"({"weight_map":{}})", Code::kCorrupt, {"weight_map"});
  refused(R"({"weight_map":)", Code::kCorrupt, {"index.json", "not valid JSON"});
}

TEST(Safetensors, Open_RefusesBadHeaders) {
  auto refused = [](const std::string& header, const std::vector<std::string>& wanted) {
    expect_refused(folder_with(shard(header, 16)), Code::kCorrupt, wanted);
  };
  refused("{" + tensor("t", "F32", "[4]", "[0,16]") + "," + tensor("t", "F32", "[4]", "[0,16]") + "}",
          {"'t'", "twice"});
  refused("{" + tensor("t", "F32", "[4]", "[0,16]") + "," + tensor("u", "F32", "[1]", "[4,8]") + "}", {"overlap"});
  refused("{" + tensor("t", "F32", "[4]", "[0,20]") + "}", {"'t'", "data_offsets"});
  refused("{" + tensor("t", "F32", "[4]", "[8,4]") + "}", {"'t'", "data_offsets"});
  refused("{" + tensor("t", "F32", "[4]", "[0]") + "}", {"'t'", "data_offsets"});
  refused("{" + tensor("t", "F32", "[4]", "[0,8]") + "}", {"'t'", "16 bytes but has 8"});
  refused("{" + tensor("t", "F32", "[0]", "[0,0]") + "}", {"'t'", "below 1"});
  refused("{" + tensor("t", "F32", "[4294967296,4294967296]", "[0,16]") + "}", {"'t'", "more elements"});
  refused("{" + tensor("t", "F32", "[18446744073709551615]", "[0,16]") + "}", {"'t'", "dimension"});
  refused("{" + tensor("t", "F32", "[-4]", "[0,16]") + "}", {"negative"});
  refused("{" + tensor("t", "F32", "[4.5]", "[0,16]") + "}", {"fraction"});
  refused("{" + tensor("t", "F32", "[[4]]", "[0,16]") + "}", {"array"});
  refused("{" + tensor("t", "F32", "[1,1,1,1,1,1,1,1]", "[0,4]") + "}", {"number"});
  refused("{\"t\":7}", {"number", "'t'"});
  refused("{\"t\":{}}", {"'t'"});
  refused(std::string(100000, '['), {"array"});
  refused("{\"t\":{\"dtype\":", {"not valid JSON"});
  refused("", {"not valid JSON"});
}

TEST(Safetensors, Open_NamesTypesItDoesNotRead) {
  MemoryFiles files = folder_with(shard("{" + tensor("t", "F8_E4M3", "[4]", "[0,4]") + "}", 4));
  expect_refused(files, Code::kUnsupported, {"'t'", "F8_E4M3", "BF16"});
}

TEST(Safetensors, Open_RefusesBadLengths) {
  expect_refused(folder_with("1234"), Code::kCorrupt, {"model.safetensors", "too few"});
  std::string huge(16, '\xff');
  expect_refused(folder_with(huge), Code::kCorrupt, {"model.safetensors", "byte 0"});
  std::string cut = shard("{" + tensor("t", "F32", "[4]", "[0,16]") + "}", 16);
  for (size_t length = 0; length < cut.size(); ++length) {
    EXPECT_FALSE(open_safetensors(folder_with(cut.substr(0, length)), "m").ok()) << length;
  }
}

TEST(Safetensors, Open_RefusesBadFolders) {
  MemoryFiles files;
  expect_refused(files, Code::kNotFound, {"config.json"});
  files.add("m/config.json", "{}");
  expect_refused(files, Code::kNotFound, {"model.safetensors"});
  files.add("m/config.json", "[]");
  expect_refused(files, Code::kCorrupt, {"config.json", "not a JSON object"});
  files.add("m/config.json", "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}");
  expect_refused(files, Code::kCorrupt, {"config.json", "nested"});
  files.add("m/config.json", "{\"a\":1");
  expect_refused(files, Code::kCorrupt, {"config.json", "byte", "not valid JSON"});
}

}  // namespace
}  // namespace stoke::formats
