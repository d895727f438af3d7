#include "formats/synth_blocks.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/check.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace stoke::formats {
namespace {

constexpr uint64_t kLevels = 4096;  // distinct values of a float tensor; a power of two

// Mean square of the integers begin..end.
constexpr double mean_square(int begin, int end) {
  double sum = 0;
  for (int i = begin; i <= end; ++i) sum += static_cast<double>(i) * i;
  return sum / (end - begin + 1);
}

constexpr double mean_square(const int8_t (&values)[16]) {
  double sum = 0;
  for (int8_t value : values) sum += static_cast<double>(value) * value;
  return sum / 16;
}

// Mean square of what a block decodes to when its scale is 1, all its random fields being uniform.
double unit_mean_square(DType type) {
  constexpr double kVar4 = 255.0 / 12;   // of 0..15
  constexpr double kVar5 = 1023.0 / 12;  // of 0..31
  constexpr double kScale6 = mean_square(0, 63);
  constexpr double kScale6Signed = mean_square(-32, 31);
  switch (type) {
    case DType::kQ4_0:
      return mean_square(-8, 7);
    case DType::kQ4_1:
      return kVar4;
    case DType::kQ5_0:
      return mean_square(-16, 15);
    case DType::kQ5_1:
      return kVar5;
    case DType::kQ8_0:
      return mean_square(-127, 127) * 255 / 256;
    case DType::kQ2_K:
      return (4 + 16 + 36 + 64) / 4.0 * 1.25;  // scales 2 4 6 8, levels -1.5 .. 1.5
    case DType::kQ3_K:
      return kScale6Signed * mean_square(-4, 3);
    case DType::kQ4_K:
      return kScale6 * kVar4;
    case DType::kQ5_K:
      return kScale6 * kVar5;
    case DType::kQ6_K:
      return mean_square(-128, 127) * mean_square(-32, 31);
    case DType::kIQ4_NL:
      return mean_square(kIQ4Values);
    case DType::kIQ4_XS:
      return kScale6Signed * mean_square(kIQ4Values);
    case DType::kMXFP4:
      return mean_square(kFP4Doubled) / 4;
    default:
      return 1;
  }
}

// Minimum over scale: what makes the mean of an affine type zero.
double offset_over_scale(DType type) {
  switch (type) {
    case DType::kQ4_1:
      return -7.5;
    case DType::kQ5_1:
      return -15.5;
    case DType::kQ2_K:
      return 1.0;  // the sub-minimum is 1.5 times the sub-scale, see randomise
    case DType::kQ4_K:
      return 7.5;
    case DType::kQ5_K:
      return 15.5;
    default:
      return 0;
  }
}

// Eight 6-bit scales and the eight 6-bit minima equal to them, packed as Q4_K and Q5_K do.
void randomise_scales(uint8_t (&scales)[12], uint64_t bits) {
  for (int i = 0; i < 4; ++i) {
    auto byte = static_cast<uint8_t>(bits >> (8 * i));
    auto nibble = static_cast<uint8_t>(bits >> (32 + 4 * i) & 15);
    scales[i] = byte;
    scales[4 + i] = byte;
    scales[8 + i] = static_cast<uint8_t>(nibble | nibble << 4);
  }
}

// Each randomise() fills one block, `scale` and `offset` being halves.
// Types whose levels are not symmetric get a random sign on the scale, which makes their mean zero.
template <typename Block>
void randomise_signed(Block& block, Random& random, uint16_t scale) {
  random.fill(&block, sizeof(block));
  block.d = static_cast<uint16_t>(scale | (block.d & 0x8000u));
}

template <typename Block>
void randomise_affine(Block& block, Random& random, uint16_t scale, uint16_t offset) {
  random.fill(&block, sizeof(block));
  block.d = scale;
  block.m = offset;
}

void randomise(BlockQ4_0& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }
void randomise(BlockQ5_0& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }
void randomise(BlockIQ4_NL& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }
void randomise(BlockIQ4_XS& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }
void randomise(BlockQ3_K& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }
void randomise(BlockQ6_K& block, Random& random, uint16_t scale, uint16_t) { randomise_signed(block, random, scale); }

void randomise(BlockQ4_1& block, Random& random, uint16_t scale, uint16_t offset) {
  randomise_affine(block, random, scale, offset);
}

void randomise(BlockQ5_1& block, Random& random, uint16_t scale, uint16_t offset) {
  randomise_affine(block, random, scale, offset);
}

void randomise(BlockQ8_0& block, Random& random, uint16_t scale, uint16_t) {
  random.fill(&block, sizeof(block));
  block.d = scale;
  for (int8_t& q : block.qs) q = q == -128 ? 0 : q;  // quantisers never write -128
}

void randomise(BlockQ2_K& block, Random& random, uint16_t scale, uint16_t offset) {
  constexpr uint8_t kScaleAndMinimum[4] = {2 | 3 << 4, 4 | 6 << 4, 6 | 9 << 4, 8 | 12 << 4};
  random.fill(&block, sizeof(block));
  for (uint8_t& s : block.scales) s = kScaleAndMinimum[s & 3];
  block.d = scale;
  block.dmin = offset;
}

void randomise(BlockQ4_K& block, Random& random, uint16_t scale, uint16_t offset) {
  random.fill(&block, sizeof(block));
  randomise_scales(block.scales, random.next());
  block.d = scale;
  block.dmin = offset;
}

void randomise(BlockQ5_K& block, Random& random, uint16_t scale, uint16_t offset) {
  random.fill(&block, sizeof(block));
  randomise_scales(block.scales, random.next());
  block.d = scale;
  block.dmin = offset;
}

template <typename Block>
void fill_blocks(std::span<std::byte> out, Random& random, uint16_t scale, uint16_t offset) {
  for (size_t at = 0; at < out.size(); at += sizeof(Block)) {
    Block block;
    randomise(block, random, scale, offset);
    std::memcpy(out.data() + at, &block, sizeof(block));
  }
}

uint64_t splitmix(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

// kLevels values spread evenly, with the deviation asked for, as `type` stores them.
std::vector<std::byte> float_levels(DType type, double deviation) {
  size_t bytes = info(type).block_bytes;
  std::vector<std::byte> levels(kLevels * bytes);
  const double step = deviation * std::sqrt(12.0) / kLevels;
  for (uint64_t i = 0; i < kLevels; ++i) {
    auto value = static_cast<float>((static_cast<double>(i) - (kLevels - 1) / 2.0) * step);
    uint16_t half = type == DType::kF16 ? float_to_half(value) : float_to_bfloat(value);
    std::memcpy(levels.data() + i * bytes, type == DType::kF32 ? static_cast<void*>(&value) : &half, bytes);
  }
  return levels;
}

}  // namespace

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) word = splitmix(&seed);
}

uint64_t Random::next() {
  uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
  uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void Random::fill(void* out, size_t bytes) {
  auto* to = static_cast<std::byte*>(out);
  for (; bytes >= 8; bytes -= 8, to += 8) {
    uint64_t word = next();
    std::memcpy(to, &word, 8);
  }
  if (bytes > 0) {
    uint64_t word = next();
    std::memcpy(to, &word, bytes);
  }
}

// Box and Muller's; the second value is not kept, so that a draw depends on the generator's state alone.
double normal_draw(Random& random) {
  const double u = (static_cast<double>(random.next() >> 11) + 0.5) * 0x1p-53;
  const double v = static_cast<double>(random.next() >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

bool takes_constant(DType type) {
  // MXFP4 has scales that are powers of two only.
  return is_float(type) || (info(type).block_elems == 32 && type != DType::kMXFP4);
}

void put_constant(DType type, float value, std::span<std::byte> out) {
  CHECK(takes_constant(type) && out.size() == row_bytes(type, 32));
  if (is_float(type)) {
    const size_t bytes = info(type).block_bytes;
    const uint16_t half = type == DType::kF16 ? float_to_half(value) : float_to_bfloat(value);
    const void* from = type == DType::kF32 ? static_cast<const void*>(&value) : &half;
    for (size_t at = 0; at < out.size(); at += bytes) std::memcpy(out.data() + at, from, bytes);
    return;
  }
  // Codes of zero stand for the lowest level, or for the minimum alone where the type has one; Q8_0 has level 127.
  std::memset(out.data(), 0, out.size());
  const bool q8 = type == DType::kQ8_0;
  if (q8) std::memset(out.data() + offsetof(BlockQ8_0, qs), 127, 32);
  const float level = q8                       ? 127.0F
                      : type == DType::kQ4_0   ? -8.0F
                      : type == DType::kQ5_0   ? -16.0F
                      : type == DType::kIQ4_NL ? static_cast<float>(kIQ4Values[0])
                                               : 1.0F;
  const uint16_t scale = float_to_half(value / level);
  const size_t at = info(type).has_min ? offsetof(BlockQ4_1, m) : 0;
  std::memcpy(out.data() + at, &scale, sizeof(scale));
}

BlockSource::BlockSource(DType type, double deviation, uint64_t seed) : type_(type), random_(seed) {
  if (is_float(type)) {
    levels_ = float_levels(type, deviation);
    return;
  }
  double scale = deviation / std::sqrt(unit_mean_square(type));
  scale_ = float_to_half(static_cast<float>(scale));
  offset_ = float_to_half(static_cast<float>(half_to_float(scale_) * offset_over_scale(type)));
  if (type == DType::kMXFP4) {
    // A power of two alone would miss the deviation by up to 41 %: two exponents are mixed so that variances add up.
    double low = std::floor(std::log2(scale));
    double up_share = (std::pow(4.0, std::log2(scale) - low) - 1) / 3;
    exponent_ = static_cast<uint8_t>(127 + low);
    exponent_up_below_ = static_cast<uint64_t>(up_share * 0x1p16);
  }
}

void BlockSource::fill_floats(std::span<std::byte> out) {
  const size_t bytes = info(type_).block_bytes;
  for (size_t at = 0; at < out.size();) {
    uint64_t word = random_.next();
    for (int i = 0; i < 4 && at < out.size(); ++i, at += bytes, word >>= 16) {
      std::memcpy(out.data() + at, levels_.data() + (word % kLevels) * bytes, bytes);
    }
  }
}

void BlockSource::fill_mxfp4(std::span<std::byte> out) {
  for (size_t at = 0; at < out.size(); at += sizeof(BlockMXFP4)) {
    BlockMXFP4 block;
    random_.fill(&block.qs, sizeof(block.qs));
    bool up = (random_.next() & 0xffff) < exponent_up_below_;
    block.e = static_cast<uint8_t>(exponent_ + up);
    std::memcpy(out.data() + at, &block, sizeof(block));
  }
}

void BlockSource::fill(std::span<std::byte> out) {
  CHECK(out.size() % info(type_).block_bytes == 0);
  switch (type_) {
    case DType::kQ4_0:
      return fill_blocks<BlockQ4_0>(out, random_, scale_, offset_);
    case DType::kQ4_1:
      return fill_blocks<BlockQ4_1>(out, random_, scale_, offset_);
    case DType::kQ5_0:
      return fill_blocks<BlockQ5_0>(out, random_, scale_, offset_);
    case DType::kQ5_1:
      return fill_blocks<BlockQ5_1>(out, random_, scale_, offset_);
    case DType::kQ8_0:
      return fill_blocks<BlockQ8_0>(out, random_, scale_, offset_);
    case DType::kQ2_K:
      return fill_blocks<BlockQ2_K>(out, random_, scale_, offset_);
    case DType::kQ3_K:
      return fill_blocks<BlockQ3_K>(out, random_, scale_, offset_);
    case DType::kQ4_K:
      return fill_blocks<BlockQ4_K>(out, random_, scale_, offset_);
    case DType::kQ5_K:
      return fill_blocks<BlockQ5_K>(out, random_, scale_, offset_);
    case DType::kQ6_K:
      return fill_blocks<BlockQ6_K>(out, random_, scale_, offset_);
    case DType::kIQ4_NL:
      return fill_blocks<BlockIQ4_NL>(out, random_, scale_, offset_);
    case DType::kIQ4_XS:
      return fill_blocks<BlockIQ4_XS>(out, random_, scale_, offset_);
    case DType::kMXFP4:
      return fill_mxfp4(out);
    default:
      return fill_floats(out);
  }
}

}  // namespace stoke::formats
