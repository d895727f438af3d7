// What the loader refuses: families, activations and tensors it does not know, numbers and shapes that disagree. Every
// case is a true model file with one thing changed in memory.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "engine/model_loader.h"
#include "formats/model_file.h"
#include "kernels/kernels.h"
#include "tensor/blocks.h"

namespace stoke {
namespace {

formats::ModelFile open(const std::string& path) {
  auto opened = formats::open_model_file("tests/data/model/" + path);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return opened.ok() ? std::move(*opened) : formats::ModelFile();
}

// The refusal's text; empty where the model is taken.
std::string refusal(const formats::ModelFile& file, const std::string& ffn_act = "") {
  const auto planned = engine::plan_model(file, {.ffn_act = ffn_act});
  return planned.ok() ? "" : planned.status().message();
}

std::string refusal_with(const std::string& folder, const char* key, const nlohmann::json& value) {
  formats::ModelFile file = open(folder);
  nlohmann::json json = nlohmann::json::parse(file.config_json);
  json[key] = value;
  file.config_json = json.dump();
  return refusal(file);
}

std::string refusal_with_meta(const std::string& path, const char* key, formats::MetaValue value) {
  formats::ModelFile file = open(path);
  file.meta[key] = std::move(value);
  return refusal(file);
}

TEST(LoaderTest, Refuse_UnknownFamilyListsTheKnown) {
  const std::string folder = refusal_with("llama", "model_type", "mamba");
  EXPECT_NE(folder.find("mamba"), std::string::npos) << folder;
  EXPECT_NE(folder.find("qwen3moe"), std::string::npos) << folder;
  const std::string gguf = refusal_with_meta("llama/model.gguf", "general.architecture", std::string("rwkv7"));
  EXPECT_NE(gguf.find("rwkv7"), std::string::npos) << gguf;
  EXPECT_NE(gguf.find("gpt-oss"), std::string::npos) << gguf;
}

TEST(LoaderTest, Refuse_UnknownActivation) {
  EXPECT_NE(refusal_with("llama", "hidden_act", "relu6").find("relu6"), std::string::npos);
  EXPECT_NE(refusal_with("llama", "hidden_act", "fatrelu").find("name its threshold"), std::string::npos);
  for (const std::string wrong : {"fatrelu:", "fatrelu:x", "fatrelu:-1", "fatrelu:nan", "fatrelu:0.1 ", "relu:0.1"}) {
    EXPECT_NE(refusal_with("llama", "hidden_act", wrong).find(wrong), std::string::npos);
  }
  EXPECT_NE(refusal_with_meta("llama/model.gguf", "llama.hidden_activation", std::string("mish")).find("mish"),
            std::string::npos);
  EXPECT_NE(refusal(open("llama"), "tanh").find("--ffn-act"), std::string::npos);
}

TEST(LoaderTest, ActivationIsReadOrOverridden) {
  const auto activation = [](const std::string& path, const std::string& ffn_act) {
    auto planned = engine::plan_model(open(path), {.ffn_act = ffn_act});
    EXPECT_TRUE(planned.ok());
    return planned.ok() ? planned->config.activation : model::NamedActivation{model::Activation::kGelu};
  };
  EXPECT_EQ(activation("llama", "").kind, model::Activation::kSilu);
  EXPECT_EQ(activation("llama-reglu", "").kind, model::Activation::kRelu);
  EXPECT_EQ(activation("llama-reglu/model.gguf", "").kind, model::Activation::kRelu);
  EXPECT_EQ(activation("mixtral-drelu", "").kind, model::Activation::kDrelu);
  EXPECT_EQ(activation("llama/model.gguf", "drelu").kind, model::Activation::kDrelu);
  const model::NamedActivation fatrelu{model::Activation::kFatrelu, 0.25f};
  EXPECT_EQ(activation("llama-fatrelu", ""), fatrelu);
  EXPECT_EQ(activation("llama-fatrelu/model.gguf", ""), fatrelu);
  EXPECT_EQ(activation("gemma2/model.gguf", "fatrelu:0.25"), fatrelu);
  EXPECT_EQ(model::activation_name(fatrelu), "fatrelu:0.25");
  EXPECT_EQ(refusal_with("mistral", "model_type", "bamboo"), "");
}

// Agreeing is no contradiction, and neither is a word where the file has none, though its family has a usual one.
TEST(LoaderTest, Refuse_ActivationThatContradictsTheFile) {
  const std::string folder = refusal(open("llama"), "relu");
  EXPECT_NE(folder.find("silu (\"hidden_act\" in config.json)"), std::string::npos) << folder;
  const std::string gguf = refusal(open("llama-reglu/model.gguf"), "silu");
  EXPECT_NE(gguf.find("llama-reglu/model.gguf"), std::string::npos) << gguf;
  EXPECT_NE(gguf.find("relu (key llama.hidden_activation)"), std::string::npos) << gguf;
  formats::ModelFile bamboo = open("mistral");
  nlohmann::json json = nlohmann::json::parse(bamboo.config_json);
  json["model_type"] = "bamboo";
  bamboo.config_json = json.dump();
  EXPECT_NE(refusal(bamboo, "relu").find("drelu (as in all of family bamboo)"), std::string::npos);
  EXPECT_EQ(refusal(bamboo, "drelu"), "");
  EXPECT_EQ(refusal(open("llama"), "swish"), "");  // silu's other name
  EXPECT_EQ(refusal(open("gemma2/model.gguf"), "relu"), "");
}

TEST(LoaderTest, Refuse_NumbersThatMakeNoSense) {
  for (const char* key : {"num_attention_heads", "num_hidden_layers", "hidden_size", "head_dim", "num_key_value_heads",
                          "max_position_embeddings", "intermediate_size"}) {
    for (const nlohmann::json& value : {nlohmann::json(0), nlohmann::json(-3), nlohmann::json(int64_t{1} << 40),
                                        nlohmann::json("many"), nlohmann::json(1e300)}) {
      EXPECT_NE(refusal_with("llama", key, value), "") << key << " " << value;
    }
  }
  EXPECT_NE(refusal_with("llama", "num_key_value_heads", 3), "");
  EXPECT_NE(refusal_with("qwen3moe", "num_experts_per_tok", 9), "");
  EXPECT_NE(refusal_with("gemma3", "layer_types", nlohmann::json::array({"full_attention"})), "");
  EXPECT_NE(refusal_with("llama", "rope_parameters", "none"), "");
  EXPECT_NE(refusal_with("phi3-long", "rope_parameters",
                         {{"rope_type", "longrope"},
                          {"rope_theta", 1e4},
                          {"short_factor", {1}},
                          {"long_factor", {1}},
                          {"original_max_position_embeddings", 32}}),
            "");
}

TEST(LoaderTest, Refuse_GgufNumbersThatMakeNoSense) {
  for (const char* key : {"llama.block_count", "llama.embedding_length", "llama.attention.head_count",
                          "llama.attention.head_count_kv", "llama.feed_forward_length", "llama.attention.key_length"}) {
    for (int64_t value : {int64_t{0}, int64_t{-1}, int64_t{1} << 33, INT64_MAX}) {
      EXPECT_NE(refusal_with_meta("llama/model.gguf", key, value), "") << key << " " << value;
    }
  }
  EXPECT_NE(refusal_with_meta("llama/model.gguf", "llama.rope.dimension_count", int64_t{7}), "");
  EXPECT_NE(refusal_with_meta("llama/model.gguf", "llama.rope.freq_base", 0.0), "");
  EXPECT_NE(refusal_with_meta("olmoe/model.gguf", "olmoe.expert_used_count", int64_t{0}), "");
  EXPECT_NE(refusal_with_meta("qwen2/model.gguf", "qwen2.expert_count", int64_t{8}), "");
}

TEST(LoaderTest, Refuse_ShapesNameTheTensorAndBothShapes) {
  formats::ModelFile file = open("llama/model.gguf");
  for (formats::TensorEntry& tensor : file.tensors) {
    if (tensor.name == "blk.1.ffn_down.weight") tensor.shape = {64, 95};
  }
  const std::string text = refusal(file);
  EXPECT_NE(text.find("blk.1.ffn_down.weight"), std::string::npos) << text;
  EXPECT_NE(text.find("64 x 95"), std::string::npos) << text;
  EXPECT_NE(text.find("64 x 96"), std::string::npos) << text;
}

TEST(LoaderTest, Refuse_MissingAndSurplusTensors) {
  formats::ModelFile missing = open("llama");
  std::erase_if(missing.tensors, [](const auto& t) { return t.name == "model.layers.1.self_attn.k_proj.weight"; });
  EXPECT_NE(refusal(missing).find("model.layers.1.self_attn.k_proj.weight"), std::string::npos);
  formats::ModelFile surplus = open("llama/model.gguf");
  formats::TensorEntry extra = surplus.tensors.front();
  extra.name = "blk.0.attn_q_norm.weight";
  surplus.tensors.push_back(extra);
  EXPECT_NE(refusal(surplus).find("blk.0.attn_q_norm.weight"), std::string::npos);
  formats::ModelFile predicting = open("llama-reglu");  // as TurboSparse folders do
  extra = predicting.tensors.front();
  extra.name = "model.layers.0.mlp.predictor.fc1.weight";
  predicting.tensors.push_back(extra);
  EXPECT_EQ(refusal(predicting), "");
}

// Whole models inside multimodal folders, and files whose rows are quantised while loading.
TEST(LoaderTest, FindsTheTextModelInsideAnother) {
  formats::ModelFile file = open("gemma3");
  nlohmann::json json = {{"model_type", "gemma3"}, {"text_config", nlohmann::json::parse(file.config_json)}};
  file.config_json = json.dump();
  for (formats::TensorEntry& tensor : file.tensors) tensor.name = "language_model." + tensor.name;
  EXPECT_EQ(refusal(file), "");
}

// gpt-oss folders hold MXFP4 as nibble pairs and scales apart, rows of gate and up alternating: row r of `up` is source
// row 2 r + 1, and its element 2 i + 1 is the high half of byte i.
TEST(LoaderTest, DecodesSplitMxfp4Rows) {
  engine::MatrixSpec spec;
  spec.info = {.type = DType::kMXFP4, .rows = 2, .cols = 64, .row_bytes = row_bytes(DType::kMXFP4, 64)};
  spec.stored = DType::kMXFP4;
  spec.layout = engine::PieceLayout::kMxfp4Split;
  const engine::Piece up{.rows = 2, .source_rows = 4, .row_begin = 1, .row_step = 2};
  std::vector<std::byte> pairs(4 * 2 * 16);
  std::vector<std::byte> scales(4 * 2);
  for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = static_cast<std::byte>(i * 37 + 11);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<std::byte>(120 + i);
  for (int64_t row = 0; row < 2; ++row) {
    std::vector<std::byte> decoded(spec.info.row_bytes);
    engine::decode_row(spec, up, pairs.data(), scales.data(), row, decoded.data());
    std::vector<float> values(64);
    kernels::find("portable")->dequantize_row(DType::kMXFP4, decoded.data(), values.data(), 64);
    const size_t source = 2 * static_cast<size_t>(row) + 1;
    for (size_t k = 0; k < 64; ++k) {
      const auto pair = static_cast<unsigned>(pairs[source * 32 + k / 2]);
      const unsigned nibble = k % 2 == 0 ? pair & 15u : pair >> 4;
      const auto exponent = static_cast<int>(scales[source * 2 + k / 32]) - 127;
      EXPECT_EQ(values[k], std::ldexp(static_cast<float>(kFP4Doubled[nibble]) / 2, exponent)) << row << " " << k;
    }
  }
}

// gpt-oss folders in BF16 hold experts transposed.
TEST(LoaderTest, DecodesTransposedRows) {
  engine::MatrixSpec spec;
  spec.info = {.type = DType::kF32, .rows = 2, .cols = 3, .row_bytes = 12};
  spec.layout = engine::PieceLayout::kTransposed;
  const engine::Piece gate{.rows = 2, .source_rows = 4, .row_begin = 0, .row_step = 2};
  std::vector<float> source(12);
  std::iota(source.begin(), source.end(), 0.0f);  // element (col, row) is 4 col + row
  std::vector<float> decoded(3);
  engine::decode_row(spec, gate, reinterpret_cast<const std::byte*>(source.data()), nullptr, 1,
                     reinterpret_cast<std::byte*>(decoded.data()));
  EXPECT_EQ(decoded, (std::vector<float>{2, 6, 10}));
}

TEST(LoaderTest, QuantChoosesATypeThatFitsEachWidth) {
  const auto planned = engine::plan_model(open("llama"), {.quant = DType::kQ4_K});
  ASSERT_TRUE(planned.ok()) << planned.status().message();
  for (const engine::MatrixSpec& spec : planned->plan.matrices) {
    EXPECT_EQ(spec.info.type, DType::kQ8_0) << spec.name;  // 64 and 96 columns cannot hold blocks of 256
    EXPECT_EQ(spec.stored, DType::kBF16) << spec.name;
  }
}

}  // namespace
}  // namespace stoke
