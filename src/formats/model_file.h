// What every model container opens to: metadata and named tensors with type, shape and place.
//
// Readers: gguf.h (single and split files), safetensors.h (Hugging Face folders). They map nothing and read no tensor
// bytes; they say where the bytes are. Everything in a file is untrusted: sizes are checked against the file's length
// before anything is allocated, and a failure names the file, the place and what was wrong.
// Thread role: any, one object per thread while opening; const afterwards. Ownership: values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace stoke::formats {

// Where bytes lie: `bytes` bytes from `offset` in files[file].
struct Extent {
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct TensorEntry {
  std::string name;
  DType type = DType::kF32;
  // Row-major shape, slowest dimension first, as Hugging Face writes it: a linear layer is (out, in), experts
  // (expert, out, in). GGUF's ne[] is this reversed.
  std::vector<int64_t> shape;
  Extent extent;
  // Empty when `type` says what the elements are. Otherwise the container's own name of a type that has no row in
  // tensor/dtype.h but is needed raw ("U8": the blocks and scales of an MXFP4 pair; "I8" and "I32": the records and
  // checksums of a neuron store); `type` means nothing then.
  std::string raw_type;

  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const;  // product of all dimensions but the last
};

// The raw types of GGUF files.
struct RawType {
  const char* name;
  uint32_t ggml_id;
  uint32_t elem_bytes;
};
inline constexpr RawType kRawI8 = {"I8", 24, 1};
inline constexpr RawType kRawI32 = {"I32", 26, 4};

// A metadata value. Arrays are homogeneous, as in GGUF. Integers of every width are held as 64 bit (an unsigned one
// above INT64_MAX as double).
using MetaArray = std::variant<std::vector<int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string>>;
using MetaValue = std::variant<int64_t, double, bool, std::string, MetaArray>;

struct ModelFile {
  std::string path;                // what the user named
  std::vector<std::string> files;  // full paths; Extent::file indexes them
  std::vector<uint64_t> file_sizes;
  std::string kind;                                    // "gguf" or "safetensors"
  std::map<std::string, MetaValue, std::less<>> meta;  // GGUF keys; for folders see config_json
  std::string config_json;                             // Hugging Face config.json text; empty for GGUF
  std::string tokenizer_json;                          // path of tokenizer.json; empty for GGUF
  std::string tokenizer_json_text;                     // its text, where there is no such file (neuron stores)
  std::string tokenizer_config_json;                   // its text; empty when absent
  std::string generation_config_json;                  // its text; empty when absent
  std::string chat_template;                           // chat_template.jinja's text; empty when absent
  std::vector<TensorEntry> tensors;                    // in file order

  const TensorEntry* find(std::string_view name) const;  // null when absent
  // Typed look-ups; integers convert to double. Null/nullopt-like: return false when absent or of another type.
  bool get(std::string_view key, int64_t* out) const;
  bool get(std::string_view key, double* out) const;
  bool get(std::string_view key, bool* out) const;
  bool get(std::string_view key, std::string* out) const;
  const MetaArray* array(std::string_view key) const;
};

// Opens a .gguf file (any part of a split one), a safetensors folder, or fails saying what the path is instead.
Result<ModelFile> open_model_file(const std::string& path);

}  // namespace stoke::formats
