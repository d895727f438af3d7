// The reader of neuron stores: what a writer declares is found, and claims that disagree are refused by name.
#include "formats/neuron_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "formats/gguf.h"
#include "formats/store_header.h"
#include "formats/store_writer.h"
#include "sys/checksum.h"
#include "sys/files.h"

namespace stoke::formats {
namespace {

constexpr const char* kPath = "m.stoke";
constexpr int64_t kDim = 64;

// Two layers, the second one of experts; everything else is one vector.
StoreHeader two_layers(RecordLayout layout, DownEncoding encoding) {
  StoreHeader header({.layout = layout, .down = encoding, .dim = kDim});
  const NeuronRecord record = layout_record(layout, encoding, kDim, DType::kQ4_0, DType::kQ4_0, DType::kQ4_1);
  header.add_matrix("a", DType::kF32, std::vector<int64_t>{kDim});
  for (const int64_t experts : {int64_t{0}, int64_t{3}}) {
    const int64_t layer = experts == 0 ? 0 : 1;
    const int64_t each = 96;
    const auto shape = [&](int64_t rows) {
      return experts == 0 ? std::vector<int64_t>{rows, kDim} : std::vector<int64_t>{experts, rows, kDim};
    };
    if (layout == RecordLayout::kSplit) {
      header.add_matrix(store_tensor_name(StorePart::kGate, layer, experts > 0), DType::kQ4_0, shape(each));
    }
    if (encoding == DownEncoding::kCodes) {
      header.add_matrix(store_tensor_name(StorePart::kScales, layer, experts > 0), DType::kF16, shape(each / 32));
      header.add_matrix(store_tensor_name(StorePart::kMins, layer, experts > 0), DType::kF16, shape(each / 32));
    }
    if (encoding == DownEncoding::kRequantized) {
      const std::vector<int64_t> dims = experts == 0 ? std::vector{kDim} : std::vector{experts, kDim};
      header.add_matrix(store_tensor_name(StorePart::kFactors, layer, experts > 0), DType::kF32, dims);
    }
    header.add_records(record, each * (experts == 0 ? 1 : experts), experts);
  }
  header.finish();
  return header;
}

std::string file_of(const StoreHeader& header) {
  std::string bytes = header.bytes();
  bytes.resize(header.tail_offset(), '\x5a');
  StoreChecksums checksums;
  for (const StoreHeader::Tensor& tensor : header.tensors()) {
    add_checksums(std::as_bytes(std::span(bytes)).subspan(tensor.offset, tensor.bytes), tensor.unit_bytes,
                  tensor.records ? &checksums.records : &checksums.matrices);
  }
  return bytes + header.tail(checksums);
}

Result<ModelFile> open_bytes(const std::string& bytes) {
  MemoryFiles files;
  files.add(kPath, bytes);
  return open_gguf(files, kPath);
}

Result<StoreChecksums> checksums_of(const std::string& bytes, const NeuronStore& store) {
  MemoryFiles files;
  files.add(kPath, bytes);
  return load_store_checksums(**files.open(kPath), store);
}

TEST(RecordLayout, PadsToSectorsWhereThatIsCheap) {
  const auto bytes = [](int64_t dim, DType type, RecordLayout layout) {
    return layout_record(layout, DownEncoding::kRequantized, dim, type, type, type).record_bytes;
  };
  EXPECT_EQ(bytes(4096, DType::kQ4_0, RecordLayout::kSplit), 4608U);   // nine sectors, nothing added
  EXPECT_EQ(bytes(4096, DType::kQ4_0, RecordLayout::kBundle), 7168U);  // 6912 used
  EXPECT_EQ(bytes(576, DType::kQ8_0, RecordLayout::kSplit), 1280U);    // 1224 used; sectors would add 312
  EXPECT_EQ(bytes(576, DType::kQ8_0, RecordLayout::kBundle), 2048U);   // 1836 used
  EXPECT_EQ(bytes(64, DType::kQ4_0, RecordLayout::kSplit), 128U);      // 72 used
}

TEST(RecordLayout, CodesTakeNoScales) {
  const NeuronRecord record =
      layout_record(RecordLayout::kBundle, DownEncoding::kCodes, 64, DType::kQ4_0, DType::kQ8_0, DType::kQ5_1);
  EXPECT_EQ(record.gate_offset, 0U);
  EXPECT_EQ(record.up_offset, 36U);
  EXPECT_EQ(record.down_offset, 36U + 68U);
  EXPECT_EQ(record.down_bytes, 40U);
}

TEST(NeuronStore, FindsWhatTheWriterDeclared) {
  for (const RecordLayout layout : {RecordLayout::kSplit, RecordLayout::kBundle}) {
    for (const DownEncoding encoding : {DownEncoding::kRequantized, DownEncoding::kCodes}) {
      const StoreHeader header = two_layers(layout, encoding);
      const std::string bytes = file_of(header);
      ASSERT_EQ(bytes.size(), header.file_bytes());
      const auto model = open_bytes(bytes);
      ASSERT_TRUE(model.ok()) << model.status().message();
      ASSERT_TRUE(is_neuron_store(*model));
      const auto store = read_neuron_store(*model);
      ASSERT_TRUE(store.ok()) << store.status().message();
      EXPECT_EQ(store->layout, layout);
      EXPECT_EQ(store->down, encoding);
      ASSERT_EQ(store->tables.size(), 2U);
      EXPECT_EQ(store->tables[0].neurons, 96);
      EXPECT_EQ(store->tables[0].experts, 1);
      EXPECT_EQ(store->tables[1].neurons, 288);
      EXPECT_EQ(store->tables[1].expert_neurons(), 96);
      EXPECT_EQ(store->tables[1].first_checksum, 96);
      EXPECT_EQ(store->header_bytes, header.bytes().size());
      const auto checksums = checksums_of(bytes, *store);
      ASSERT_TRUE(checksums.ok()) << checksums.status().message();
      const RecordTable& table = store->tables[1];
      EXPECT_EQ(checksums->records[static_cast<size_t>(table.first_checksum + 5)],
                sys::checksum32(bytes.data() + table.offset_of(5), table.record.record_bytes));
    }
  }
}

TEST(NeuronStore, TheWriterMakesTheSameFile) {
  const StoreHeader header = two_layers(RecordLayout::kSplit, DownEncoding::kCodes);
  const std::string path = testing::TempDir() + std::to_string(getpid()) + "stoke_store_writer.stoke";
  auto writer = StoreWriter::create(path, header);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  const std::string wanted = file_of(header);
  for (size_t i = 0; i < header.tensors().size(); ++i) {
    const StoreHeader::Tensor& tensor = header.tensors()[i];
    while ((*writer)->index() == i) {
      const uint64_t at = (*writer)->done();
      const std::string bytes(std::min(2 * tensor.unit_bytes, tensor.bytes - at), '\x5a');
      ASSERT_TRUE((*writer)->append(std::as_bytes(std::span(bytes))).ok());
    }
  }
  ASSERT_TRUE((*writer)->finish().ok());
  const std::string found = *sys::read_file(path);
  std::filesystem::remove(path);
  const auto store = read_neuron_store(*open_bytes(found));
  ASSERT_TRUE(store.ok()) << store.status().message();
  EXPECT_TRUE(checksums_of(found, *store).ok());
  for (const StoreHeader::Tensor& tensor : header.tensors()) {  // padding differs: the test's is no zeros
    EXPECT_EQ(found.compare(tensor.offset, tensor.bytes, wanted, tensor.offset, tensor.bytes), 0) << tensor.name;
  }
  EXPECT_EQ(found.substr(header.tail_offset()), wanted.substr(header.tail_offset()));
}

TEST(NeuronStore, DamageToHeaderTablesAndSealIsFound) {
  const StoreHeader header = two_layers(RecordLayout::kSplit, DownEncoding::kRequantized);
  const std::string bytes = file_of(header);
  const auto store = read_neuron_store(*open_bytes(bytes));
  const uint64_t places[] = {20, store->record_checksums.offset, store->matrix_checksums.offset, store->seal.offset,
                             store->seal.offset + 15};
  for (const uint64_t at : places) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    const auto checksums = checksums_of(damaged, *store);
    EXPECT_EQ(checksums.status().code(), Code::kCorrupt) << at;
  }
}

// A store of one layer of bundles with something wrong in it.
struct Claims {
  uint32_t version = 1;
  std::string layout = "bundle";
  std::string down = "requantized";
  uint32_t cluster = 256;
  uint32_t dim = 32;
  std::vector<int32_t> gate = {8}, up = {8}, down_types = {8}, bytes = {128};
  std::vector<int64_t> shape = {2, 128};
  std::string records = "blk.0.ffn_records";
  int64_t factors = 32;
  int64_t record_checksums = 2, matrix_checksums = 1, seal = 4;
};

std::string claim(const Claims& claims) {
  GgufHeader header(kStoreAlignment);
  header.set_u32(store_keys::kVersion, claims.version);
  header.set_string(store_keys::kLayout, claims.layout);
  header.set_string(store_keys::kDown, claims.down);
  header.set_u32(store_keys::kClusterNeurons, claims.cluster);
  header.set_u32(store_keys::kDim, claims.dim);
  header.set_i32s(store_keys::kGateTypes, claims.gate);
  header.set_i32s(store_keys::kUpTypes, claims.up);
  header.set_i32s(store_keys::kDownTypes, claims.down_types);
  header.set_i32s(store_keys::kRecordBytes, claims.bytes);
  header.add_tensor("blk.0.ffn_down_factors", DType::kF32, std::vector{claims.factors});
  header.add_raw(claims.records, kRawI8, claims.shape);
  header.add_raw(kRecordChecksums, kRawI32, std::vector<int64_t>{claims.record_checksums});
  header.add_raw(kMatrixChecksums, kRawI32, std::vector<int64_t>{claims.matrix_checksums});
  header.add_raw(kSeal, kRawI32, std::vector<int64_t>{claims.seal});
  std::string bytes = header.bytes();
  return bytes.append(header.data_bytes(), '\0');
}

TEST(NeuronStore, RefusesClaimsThatDisagree) {
  ASSERT_TRUE(read_neuron_store(*open_bytes(claim({}))).ok());
  const std::pair<const char*, std::function<void(Claims&)>> wrong[] = {
      {"version 2", [](Claims& c) { c.version = 2; }},
      {"stoke.layout", [](Claims& c) { c.layout = "columns"; }},
      {"blk.0.ffn_gate.weight", [](Claims& c) { c.layout = "split", c.bytes = {128}; }},
      {"stoke.down", [](Claims& c) { c.down = ""; }},
      {"stoke.cluster_neurons", [](Claims& c) { c.cluster = 128; }},
      {"stoke.dim", [](Claims& c) { c.dim = 0; }},
      {"stoke.dim", [](Claims& c) { c.dim = 40; }},
      {"stoke.record_bytes", [](Claims& c) { c.dim = 64; }},
      {"stoke.record_bytes", [](Claims& c) { c.bytes = {192}; }},
      {"stoke.gate_types",
       [](Claims& c) {
         c.gate = {8, 8};
       }},
      {"stoke.up_types", [](Claims& c) { c.up = {4}; }},
      {"stoke.down_types", [](Claims& c) { c.down = "codes", c.down_types = {1}; }},
      {"blk.1.ffn_records",
       [](Claims& c) {
         c.gate = c.up = c.down_types = {8, 8}, c.bytes = {128, 128};
       }},
      {"blk.0.ffn_records",
       [](Claims& c) {
         c.shape = {2, 64};
       }},
      {"blk.0.ffn_records",
       [](Claims& c) {
         c.shape = {1, 2, 128};
       }},
      {"blk.0.ffn_records_exps", [](Claims& c) { c.records = "blk.0.ffn_records_exps"; }},
      {"blk.0.ffn_down_factors", [](Claims& c) { c.factors = 16; }},
      {"stoke.record_checksums", [](Claims& c) { c.record_checksums = 3; }},
      {"stoke.matrix_checksums", [](Claims& c) { c.matrix_checksums = 2; }},
      {"stoke.seal", [](Claims& c) { c.seal = 3; }},
  };
  for (const auto& [text, change] : wrong) {
    Claims claims;
    change(claims);
    const auto store = read_neuron_store(*open_bytes(claim(claims)));
    ASSERT_FALSE(store.ok()) << text;
    EXPECT_NE(store.status().message().find(text), std::string::npos) << store.status().message();
    EXPECT_NE(store.status().message().find(kPath), std::string::npos) << store.status().message();
  }
}

}  // namespace
}  // namespace stoke::formats
