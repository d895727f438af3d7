#include "convert/down_columns.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"

namespace stoke::convert {
namespace {

constexpr int64_t kRows = 16;  // turned together: a cache line of floats of every column

using Codes = std::array<uint8_t, kCodeBlock>;

size_t scales_bytes(DType type) { return info(type).block_bytes - code_block_bytes(type); }

// Codes of a block and back; `bytes` is the block without its scales (docs/FORMAT.md).
void unpack(DType type, const std::byte* bytes, Codes* out) {
  const auto* at = reinterpret_cast<const uint8_t*>(bytes);
  if (type == DType::kQ8_0) {
    std::memcpy(out->data(), at, out->size());
    return;
  }
  const bool fifth = type == DType::kQ5_0 || type == DType::kQ5_1;
  uint32_t high = 0;
  if (fifth) std::memcpy(&high, at, sizeof(high));
  const uint8_t* nibbles = fifth ? at + sizeof(high) : at;
  for (size_t i = 0; i < out->size(); ++i) {
    const uint32_t nibble = i < 16 ? nibbles[i] & 15U : nibbles[i - 16] >> 4U;
    (*out)[i] = static_cast<uint8_t>(nibble | ((high >> i & 1U) << 4U));
  }
}

void pack(DType type, const Codes& codes, std::byte* bytes) {
  auto* at = reinterpret_cast<uint8_t*>(bytes);
  if (type == DType::kQ8_0) {
    std::memcpy(at, codes.data(), codes.size());
    return;
  }
  const bool fifth = type == DType::kQ5_0 || type == DType::kQ5_1;
  uint32_t high = 0;
  for (size_t i = 0; i < codes.size(); ++i) high |= (codes[i] >> 4U & 1U) << i;
  if (fifth) std::memcpy(at, &high, sizeof(high));
  uint8_t* nibbles = fifth ? at + sizeof(high) : at;
  for (size_t i = 0; i < 16; ++i) nibbles[i] = static_cast<uint8_t>((codes[i] & 15U) | (codes[i + 16] & 15U) << 4U);
}

void encode_requantized(const DownView& down, const NeuronRecord& record, RowRange columns, std::vector<float>* floats,
                        std::byte* out) {
  const int64_t count = columns.size();
  const auto& kernels = kernels::best();
  floats->resize(static_cast<size_t>(down.dim * count));
  std::array<float, static_cast<size_t>(kRows * kColumnTile)> rows;
  for (int64_t d = 0; d < down.dim; d += kRows) {
    const int64_t depth = std::min(kRows, down.dim - d);
    for (int64_t r = 0; r < depth; ++r) {
      kernels.dequantize_row(down.type, down.at(d + r, columns.begin), rows.data() + r * count, count);
    }
    std::array<float, static_cast<size_t>(kRows)> inverse;
    for (int64_t r = 0; r < depth; ++r) inverse[static_cast<size_t>(r)] = 1.0F / down.factors[d + r];
    for (int64_t c = 0; c < count; ++c) {
      float* const column = floats->data() + c * down.dim + d;
      for (int64_t r = 0; r < depth; ++r) {
        column[r] = rows[static_cast<size_t>(r * count + c)] * inverse[static_cast<size_t>(r)];
      }
    }
  }
  for (int64_t c = 0; c < count; ++c) {
    std::byte* const to = out + static_cast<size_t>(c) * record.record_bytes + record.down_offset;
    kernels::quantize_row(record.down_type, floats->data() + c * down.dim, to, down.dim);
  }
}

// 32 columns by 32 rows at a time: one block of each row in, one block of each column out.
void encode_codes(const DownView& down, const NeuronRecord& record, RowRange columns, std::byte* out) {
  const size_t skip = scales_bytes(down.type);
  const size_t step = code_block_bytes(down.type);
  std::array<Codes, kCodeBlock> rows;
  for (int64_t first = columns.begin; first < columns.end; first += kCodeBlock) {
    for (int64_t d = 0; d < down.dim; d += kCodeBlock) {
      for (int64_t r = 0; r < kCodeBlock; ++r) {
        unpack(down.type, down.at(d + r, first) + skip, &rows[static_cast<size_t>(r)]);
      }
      for (int64_t c = 0; c < kCodeBlock; ++c) {
        Codes column;
        for (size_t r = 0; r < column.size(); ++r) column[r] = rows[r][static_cast<size_t>(c)];
        std::byte* const to = out + static_cast<size_t>(first - columns.begin + c) * record.record_bytes;
        pack(down.type, column, to + record.down_offset + static_cast<size_t>(d / kCodeBlock) * step);
      }
    }
  }
}

}  // namespace

void encode_columns(const DownView& down, const NeuronRecord& record, RowRange columns, std::vector<float>* floats,
                    std::byte* out) {
  CHECK(columns.begin % kColumnTile == 0 && columns.size() <= kColumnTile && columns.end <= down.ffn);
  if (record.down_encoding == DownEncoding::kCodes) {
    encode_codes(down, record, columns, out);
  } else {
    encode_requantized(down, record, columns, floats, out);
  }
}

void row_factors(const DownView& down, float* out) {
  std::vector<float> row(static_cast<size_t>(down.ffn));
  for (int64_t d = 0; d < down.dim; ++d) {
    kernels::best().dequantize_row(down.type, down.at(d, 0), row.data(), down.ffn);
    double squares = 0;
    for (const float x : row) squares += static_cast<double>(x) * static_cast<double>(x);
    const double rms = std::sqrt(squares / static_cast<double>(down.ffn));
    const bool sane = rms > 0x1p-100 && rms < 0x1p100;
    out[d] = sane ? std::exp2(static_cast<float>(std::round(std::log2(rms)))) : 1.0F;
  }
}

void extract_scales(const DownView& down, int which, uint16_t* out) {
  for (int64_t d = 0; d < down.dim; ++d) {
    for (int64_t b = 0; b < down.ffn / kCodeBlock; ++b) {
      const std::byte* const block = down.at(d, b * kCodeBlock);
      std::memcpy(out + b * down.dim + d, block + static_cast<size_t>(which) * sizeof(uint16_t), sizeof(uint16_t));
    }
  }
}

}  // namespace stoke::convert
