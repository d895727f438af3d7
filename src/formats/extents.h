// Checks shared by the readers: how many bytes a tensor of untrusted shape takes, and that a file's tensors lie inside
// it without overlapping. Thread role: any; pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/model_file.h"

namespace stoke::formats {

inline constexpr size_t kTensorsMax = 1 << 17;  // about three times the most that a published model has
inline constexpr size_t kDimensionsMax = 4;

// Sets *bytes from shape and type with every product checked. The failure's text has neither file nor tensor name:
// callers add them with Status::with.
Status tensor_bytes(DType type, const std::vector<int64_t>& shape, uint64_t* bytes);
// The same for a raw type of `elem_bytes` bytes an element.
Status raw_bytes(uint64_t elem_bytes, const std::vector<int64_t>& shape, uint64_t* bytes);

// Fails where two tensors share a name or bytes, or where one leaves its file.
Status check_extents(const ModelFile& model);

// "(12, 64)"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace stoke::formats
