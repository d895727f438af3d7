#include "formats/extents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_set>

#include "formats/byte_source.h"

namespace stoke::formats {
namespace {

Status elements(const std::vector<int64_t>& shape, int64_t* out) {
  if (shape.empty() || shape.size() > kDimensionsMax) {
    return Status(Code::kCorrupt, fmt::format("has {} dimensions; 1 to {} are possible", shape.size(), kDimensionsMax));
  }
  int64_t product = 1;
  for (int64_t dim : shape) {
    if (dim <= 0) return Status(Code::kCorrupt, fmt::format("shape {} has a dimension below 1", shape_text(shape)));
    if (__builtin_mul_overflow(product, dim, &product)) {
      return Status(Code::kCorrupt, fmt::format("shape {} has more elements than 2^63", shape_text(shape)));
    }
  }
  *out = product;
  return ok_status();
}

Status too_large(const std::vector<int64_t>& shape) {
  return Status(Code::kCorrupt, fmt::format("shape {} takes more bytes than 2^64", shape_text(shape)));
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

Status tensor_bytes(DType type, const std::vector<int64_t>& shape, uint64_t* bytes) {
  int64_t count = 0;
  STOKE_TRY(elements(shape, &count));
  const DTypeInfo& row = info(type);
  if (shape.back() % row.block_elems != 0) {
    return Status(Code::kCorrupt, fmt::format("rows of {} elements are not whole blocks of {}, as {} needs",
                                              shape.back(), row.block_elems, row.title));
  }
  if (__builtin_mul_overflow(static_cast<uint64_t>(count / row.block_elems), uint64_t{row.block_bytes}, bytes)) {
    return too_large(shape);
  }
  return ok_status();
}

Status raw_bytes(uint64_t elem_bytes, const std::vector<int64_t>& shape, uint64_t* bytes) {
  int64_t count = 0;
  STOKE_TRY(elements(shape, &count));
  if (__builtin_mul_overflow(static_cast<uint64_t>(count), elem_bytes, bytes)) return too_large(shape);
  return ok_status();
}

Status check_extents(const ModelFile& model) {
  std::unordered_set<std::string_view> names;
  std::vector<const TensorEntry*> by_place;
  for (const TensorEntry& tensor : model.tensors) {
    const Extent& at = tensor.extent;
    if (!names.insert(tensor.name).second) {
      return Status(Code::kCorrupt, fmt::format("{}: tensor {} is there twice: the file is corrupt",
                                                model.files[at.file], shown(tensor.name)));
    }
    uint64_t size = model.file_sizes[at.file];
    if (at.offset > size || at.bytes > size - at.offset) {
      return Status(Code::kCorrupt,
                    fmt::format("{}: tensor {} takes {} bytes from byte {}, but the file has {}: it is cut short; "
                                "fetch it again",
                                model.files[at.file], shown(tensor.name), at.bytes, at.offset, size));
    }
    by_place.push_back(&tensor);
  }
  std::sort(by_place.begin(), by_place.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::tie(a->extent.file, a->extent.offset) < std::tie(b->extent.file, b->extent.offset);
  });
  for (size_t i = 1; i < by_place.size(); ++i) {
    const Extent& before = by_place[i - 1]->extent;
    const Extent& at = by_place[i]->extent;
    if (before.file == at.file && before.offset + before.bytes > at.offset) {
      return Status(Code::kCorrupt,
                    fmt::format("{}: tensors {} and {} overlap at byte {}: the file is corrupt", model.files[at.file],
                                shown(by_place[i - 1]->name), shown(by_place[i]->name), at.offset));
    }
  }
  return ok_status();
}

}  // namespace stoke::formats
