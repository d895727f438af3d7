#include "engine/tensor_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>

#include "tensor/half.h"

namespace stoke::engine {
namespace {

using formats::TensorEntry;
using model::Role;

// How text models are named inside multimodal folders.
constexpr const char* kPrefixes[] = {"model.", "language_model.model.", "model.language_model."};

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

// What no output depends on: tables of the rotary embedding, which are computed here, and TurboSparse's networks that
// guess which neurons will fire, where the gate says it exactly.
bool is_spare(std::string_view name) {
  const auto holds = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  return holds("rotary_emb.inv_freq") || starts_with(name, "rope_") || holds(".mlp.predictor.fc");
}

void to_float(DType type, const std::byte* data, std::vector<float>* out) {
  for (size_t i = 0; i < out->size(); ++i) {
    if (type == DType::kF32) {
      std::memcpy(&(*out)[i], data + 4 * i, 4);
      continue;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, data + 2 * i, 2);
    (*out)[i] = type == DType::kF16 ? half_to_float(bits) : bfloat_to_float(bits);
  }
}

}  // namespace

TensorTable::TensorTable(const formats::ModelFile& file, const model::Family& family, std::optional<DType> quant)
    : file_(file), family_(family), gguf_(file.kind == "gguf"), quant_(quant), prefix_(kPrefixes[0]) {
  known_.reserve(file.tensors.size());
  for (const TensorEntry& tensor : file.tensors) known_[tensor.name] = {&tensor, false};
  for (const char* prefix : kPrefixes) {
    prefix_ = prefix;
    if (has(Role::kEmbedding, {})) return;
  }
  prefix_ = kPrefixes[0];
}

std::string TensorTable::resolve(std::string_view pattern, Place place) const {
  std::string name = model::tensor_name(pattern, place.layer, place.expert);
  if (gguf_ || prefix_ == kPrefixes[0]) return name;
  if (starts_with(name, kPrefixes[0])) return prefix_ + name.substr(std::strlen(kPrefixes[0]));
  return prefix_ == kPrefixes[1] ? "language_model." + name : name;
}

std::string TensorTable::name(Role role, Place place) const {
  const char* pattern = gguf_ ? gguf_name(family_, role) : hf_name(family_, role);
  return pattern == nullptr ? "" : resolve(pattern, place);
}

const TensorEntry* TensorTable::find(Role role, Place place) {
  const auto it = known_.find(name(role, place));
  if (it == known_.end()) return nullptr;
  it->second.used = true;
  return it->second.tensor;
}

Status TensorTable::missing(Role role, Place place) const {
  return Status(Code::kCorrupt,
                fmt::format("{}: tensor {} is missing (family {})", file_.path, name(role, place), family_.name));
}

Status TensorTable::wrong_shape(const TensorEntry& tensor, const std::string& expected) const {
  return Status(Code::kCorrupt, fmt::format("{}: tensor {} has shape {}, but the configuration gives {}", file_.path,
                                            tensor.name, fmt::join(tensor.shape, " x "), expected));
}

Status TensorTable::check_matrix(const TensorEntry& tensor, Dims dims) const {
  if (tensor.rows() != dims.rows || tensor.cols() != dims.cols) {
    return wrong_shape(tensor, fmt::format("{} x {}", dims.rows, dims.cols));
  }
  if (!tensor.raw_type.empty()) {
    return Status(Code::kUnsupported,
                  fmt::format("{}: tensor {} has element type {}", file_.path, tensor.name, tensor.raw_type));
  }
  if (dims.cols % info(tensor.type).block_elems != 0) {
    return wrong_shape(tensor, fmt::format("rows of whole {} blocks", info(tensor.type).title));
  }
  return ok_status();
}

// What a matrix becomes under --quant. The router and one-row gates stay as they are; the embedding and the head keep
// eight bits; a width that the wanted type cannot cut takes Q8_0, or stays.
DType TensorTable::loaded_type(Role role, DType stored, int64_t cols) const {
  if (!quant_.has_value() || !is_float(stored)) return stored;
  if (role == Role::kRouter || role == Role::kSharedWeight) return stored;
  const bool outer = role == Role::kEmbedding || role == Role::kHead;
  const DType wanted = outer && !is_float(*quant_) ? DType::kQ8_0 : *quant_;
  if (cols % info(wanted).block_elems == 0) return wanted;
  return cols % info(DType::kQ8_0).block_elems == 0 ? DType::kQ8_0 : stored;
}

model::MatrixId TensorTable::add(MatrixSpec spec) {
  plan_.matrices.push_back(std::move(spec));
  return {static_cast<int32_t>(plan_.matrices.size() - 1)};
}

Result<MatrixSpec> TensorTable::spec_of(Role role, Place place, const TensorEntry& tensor, Dims dims) const {
  MatrixSpec spec;
  spec.name = tensor.name;
  spec.stored = tensor.type;
  spec.layer = place.layer;
  spec.info = {.type = loaded_type(role, tensor.type, dims.cols), .rows = dims.rows, .cols = dims.cols};
  spec.info.row_bytes = row_bytes(spec.info.type, dims.cols);
  return spec;
}

Result<model::MatrixSlice> TensorTable::matrix(Role role, Place place, Dims dims) {
  const TensorEntry* tensor = find(role, place);
  if (tensor == nullptr) return missing(role, place);
  STOKE_TRY(check_matrix(*tensor, dims));
  STOKE_ASSIGN(MatrixSpec spec, spec_of(role, place, *tensor, dims));
  spec.pieces.push_back({.extent = tensor->extent, .rows = dims.rows, .source_rows = dims.rows});
  return model::MatrixSlice{add(std::move(spec)), {0, dims.rows}};
}

Result<model::MatrixSlice> TensorTable::named(const std::string& name, int layer, Dims dims) {
  const auto it = known_.find(name);
  if (it == known_.end()) {
    return Status(Code::kCorrupt, fmt::format("{}: tensor {} is missing", file_.path, name));
  }
  it->second.used = true;
  const TensorEntry& tensor = *it->second.tensor;
  STOKE_TRY(check_matrix(tensor, dims));
  MatrixSpec spec{.name = name,
                  .info = {.type = tensor.type,
                           .rows = dims.rows,
                           .cols = dims.cols,
                           .row_bytes = row_bytes(tensor.type, dims.cols)},
                  .stored = tensor.type,
                  .layer = layer};
  spec.pieces.push_back({.extent = tensor.extent, .rows = dims.rows, .source_rows = dims.rows});
  return model::MatrixSlice{add(std::move(spec)), {0, dims.rows}};
}

void TensorTable::note_used(std::string_view name) {
  const auto it = known_.find(name);
  if (it != known_.end()) it->second.used = true;
}

Result<model::ExpertSlices> TensorTable::experts(Role role, Place place, int64_t count, Dims dims) {
  const bool one_each = name(role, {place.layer, 0}) != name(role, {place.layer, 1});
  const int64_t tensors = one_each ? count : 1;
  const Dims each = {one_each ? dims.rows : dims.rows * count, dims.cols};
  const TensorEntry* first = find(role, {place.layer, 0});
  if (first == nullptr) return missing(role, place);
  STOKE_ASSIGN(MatrixSpec spec, spec_of(role, place, *first, {dims.rows * count, dims.cols}));
  for (int64_t e = 0; e < tensors; ++e) {
    const TensorEntry* tensor = find(role, {place.layer, e});
    if (tensor == nullptr) return missing(role, {place.layer, e});
    STOKE_TRY(check_matrix(*tensor, each));
    if (tensor->type != spec.stored) {
      return Status(Code::kUnsupported,
                    fmt::format("{}: tensor {} is {} but {} is {}; experts of a layer must be of one type", file_.path,
                                tensor->name, info(tensor->type).title, spec.name, info(spec.stored).title));
    }
    spec.pieces.push_back({.extent = tensor->extent, .rows = each.rows, .source_rows = each.rows});
  }
  return model::ExpertSlices{.id = add(std::move(spec)), .first = 0, .step = dims.rows, .rows = dims.rows};
}

Result<model::ExpertSlices> TensorTable::picked_experts(const Picked& picked, Place place, int64_t count, Dims dims) {
  const bool mxfp4 = has(picked.blocks, place);
  const TensorEntry* tensor = find(mxfp4 ? picked.blocks : picked.role, place);
  const TensorEntry* scales = mxfp4 ? find(picked.scales, place) : nullptr;
  if (tensor == nullptr) return missing(picked.role, place);
  if (mxfp4 && scales == nullptr) return missing(picked.scales, place);
  const std::vector<int64_t> shape = mxfp4 ? std::vector<int64_t>{count, picked.source_rows, dims.cols / 32, 16}
                                           : std::vector<int64_t>{count, dims.cols, picked.source_rows};
  if (tensor->shape != shape) return wrong_shape(*tensor, fmt::format("{}", fmt::join(shape, " x ")));
  if (mxfp4 && (dims.cols % 32 != 0 || scales->rows() * scales->cols() * 16 != tensor->rows() * 16)) {
    return wrong_shape(*scales, fmt::format("{} x {} x {}", count, picked.source_rows, dims.cols / 32));
  }
  if (mxfp4 != (tensor->raw_type == "U8") || (!mxfp4 && !is_float(tensor->type))) {
    return Status(Code::kUnsupported,
                  fmt::format("{}: tensor {} has an element type that experts cannot have", file_.path, tensor->name));
  }
  STOKE_ASSIGN(MatrixSpec spec, spec_of(picked.role, place, *tensor, {dims.rows * count, dims.cols}));
  if (mxfp4) {
    spec.stored = spec.info.type = DType::kMXFP4;
    spec.info.row_bytes = row_bytes(DType::kMXFP4, dims.cols);
  }
  spec.layout = mxfp4 ? PieceLayout::kMxfp4Split : PieceLayout::kTransposed;
  const auto part = [count](const formats::Extent& all, int64_t e) {
    const uint64_t bytes = all.bytes / static_cast<uint64_t>(count);
    return formats::Extent{all.file, all.offset + static_cast<uint64_t>(e) * bytes, bytes};
  };
  for (int64_t e = 0; e < count; ++e) {
    spec.pieces.push_back({.extent = part(tensor->extent, e),
                           .scales = mxfp4 ? part(scales->extent, e) : formats::Extent{},
                           .rows = dims.rows,
                           .source_rows = picked.source_rows,
                           .row_begin = picked.begin,
                           .row_step = picked.step});
  }
  return model::ExpertSlices{.id = add(std::move(spec)), .first = 0, .step = dims.rows, .rows = dims.rows};
}

Result<model::Vector> TensorTable::vector(Role role, Place place, int64_t count, bool required) {
  const TensorEntry* tensor = find(role, place);
  if (tensor == nullptr) {
    if (required) return missing(role, place);
    return model::Vector();
  }
  return to_vector(*tensor, count);
}

Result<model::Vector> TensorTable::named_vector(const std::string& name, int64_t count) {
  const auto it = known_.find(name);
  if (it == known_.end()) return Status(Code::kCorrupt, fmt::format("{}: tensor {} is missing", file_.path, name));
  it->second.used = true;
  return to_vector(*it->second.tensor, count);
}

Result<model::Vector> TensorTable::to_vector(const TensorEntry& tensor, int64_t count) {
  if (tensor.rows() * tensor.cols() != count) return wrong_shape(tensor, fmt::format("{} elements", count));
  if (!tensor.raw_type.empty() || !is_float(tensor.type)) {
    return Status(Code::kUnsupported, fmt::format("{}: tensor {} is {}; stoke wants F32, F16 or BF16 here", file_.path,
                                                  tensor.name, info(tensor.type).title));
  }
  model::Vector out(static_cast<size_t>(count));
  STOKE_TRY(read(tensor, &out));
  return out;
}

Result<model::Vector> TensorTable::norm(Role role, Place place, int64_t count, bool required) {
  STOKE_ASSIGN(model::Vector out, vector(role, place, count, required));
  if (!gguf_ && family_.hf_norm_plus_one) {
    for (float& w : out) w += 1.0f;
  }
  return out;
}

Status TensorTable::read(const TensorEntry& tensor, std::vector<float>* out) {
  const size_t bytes = row_bytes(tensor.type, static_cast<int64_t>(out->size()));
  if (tensor.extent.bytes < bytes || tensor.extent.file >= file_.files.size()) {
    return Status(Code::kCorrupt, fmt::format("{}: tensor {} has {} bytes, expected {}", file_.path, tensor.name,
                                              tensor.extent.bytes, bytes));
  }
  auto it = files_.find(tensor.extent.file);
  if (it == files_.end()) {
    STOKE_ASSIGN(sys::File opened, sys::File::open_read(file_.files[tensor.extent.file]));
    opened.no_read_ahead();
    it = files_.emplace(tensor.extent.file, std::move(opened)).first;
  }
  std::vector<std::byte> raw(bytes);
  STOKE_TRY(it->second.pread_full(raw.data(), bytes, tensor.extent.offset));
  constexpr size_t kTableBytes = size_t{64} << 10;  // more than any norm: factors of experts
  if (bytes >= kTableBytes) it->second.drop_read(tensor.extent.offset, bytes);
  to_float(tensor.type, raw.data(), out);
  return ok_status();
}

Status TensorTable::check_all_used(int layers) const {
  const std::string layer_prefix = gguf_ ? "blk." : prefix_ + "layers.";
  for (const TensorEntry& tensor : file_.tensors) {
    if (known_.at(tensor.name).used || is_spare(tensor.name)) continue;
    bool ours = gguf_ || starts_with(tensor.name, "lm_head.");
    if (starts_with(tensor.name, layer_prefix)) {
      ours = std::strtoll(tensor.name.c_str() + layer_prefix.size(), nullptr, 10) < layers;
    }
    if (!ours) continue;
    return Status(Code::kUnsupported, fmt::format("{}: tensor {} is not known for family {}; without it the output "
                                                  "would be wrong",
                                                  file_.path, tensor.name, family_.name));
  }
  return ok_status();
}

}  // namespace stoke::engine
