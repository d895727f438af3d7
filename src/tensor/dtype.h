// Element types of stored tensors: one table row per type.
//
// A row of a matrix is a whole number of blocks; a block holds `block_elems` elements in `block_bytes` bytes, laid out
// as the GGUF format defines (the ggml documentation of the types; the structs are in blocks.h).
// For products a block is seen as groups of `group_elems` elements that share a scale (and a minimum, where has_min):
// value = scale * (u - offset) + min, u an unsigned byte. See kernels/kernels.h.
// Thread role: any; constant data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace stoke {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kCount
};

struct DTypeInfo {
  DType type;
  const char* name;      // lower case, as flags and documents spell it: "q4_k"
  const char* title;     // as model files name it: "Q4_K"
  uint32_t ggml_id;      // the type's number in a GGUF tensor table
  uint32_t block_elems;  // elements in a block; 1 for float types
  uint32_t block_bytes;
  uint32_t group_elems;  // elements that share a scale; 0 for float types
  bool has_min;          // groups carry an additive term
};

inline constexpr int kDTypeCount = static_cast<int>(DType::kCount);

const DTypeInfo& info(DType type);
// All rows, in the order of the enumeration.
std::span<const DTypeInfo> all_dtypes();
inline bool is_float(DType type) { return info(type).group_elems == 0; }

// Null where unknown. The name is matched without regard to case.
const DTypeInfo* find_dtype(std::string_view name);
const DTypeInfo* find_ggml_type(uint32_t ggml_id);

// Bytes of `elems` consecutive elements. Requires: elems is a multiple of block_elems.
size_t row_bytes(DType type, int64_t elems);

}  // namespace stoke
