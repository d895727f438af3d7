// Neuron stores (docs/FORMAT.md): GGUF files whose FFN matrices lie as records, one a neuron, with checksums.
//
// Everything else of a store is a GGUF file's: metadata, tensor table, the other tensors under their source's names.
// read_neuron_store() compares what the keys and the table claim before anyone relies on it; it reads no tensor bytes.
// Thread role: any; pure functions. Ownership: values.
// Errors: kUnsupported (another version), kCorrupt (claims that disagree), each naming the file and the tensor or key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/byte_source.h"
#include "formats/model_file.h"
#include "tensor/record_table.h"

namespace stoke::formats {

inline constexpr int64_t kStoreVersion = 1;
inline constexpr int64_t kChecksumRows = 16;                      // rows of a matrix that share a checksum
inline constexpr uint64_t kHeaderPieceBytes = uint64_t{1} << 20;  // the header is checksummed in such pieces

namespace store_keys {
inline constexpr std::string_view kVersion = "stoke.version";
inline constexpr std::string_view kLayout = "stoke.layout";  // "split" or "bundle"
inline constexpr std::string_view kDown = "stoke.down";      // "requantized" or "codes"
inline constexpr std::string_view kClusterNeurons = "stoke.cluster_neurons";
inline constexpr std::string_view kDim = "stoke.dim";
inline constexpr std::string_view kGateTypes = "stoke.gate_types";        // one a layer, ggml numbers
inline constexpr std::string_view kUpTypes = "stoke.up_types";            // likewise
inline constexpr std::string_view kDownTypes = "stoke.down_types";        // likewise
inline constexpr std::string_view kRecordBytes = "stoke.record_bytes";    // one a layer
inline constexpr std::string_view kSource = "stoke.source";               // "gguf" or "safetensors"
inline constexpr std::string_view kActivation = "stoke.activation";       // as --ffn-act spells it
inline constexpr std::string_view kOrder = "stoke.order";                 // "source" (also where absent) or "hot-first"
inline constexpr std::string_view kFiringTokens = "stoke.firing_tokens";  // that kFiring was counted over
// Of a folder, whose texts the store carries.
inline constexpr std::string_view kConfig = "stoke.config_json";
inline constexpr std::string_view kTokenizer = "stoke.tokenizer_json";
inline constexpr std::string_view kTokenizerConfig = "stoke.tokenizer_config_json";
inline constexpr std::string_view kGenerationConfig = "stoke.generation_config_json";
inline constexpr std::string_view kChatTemplate = "stoke.chat_template";
}  // namespace store_keys

inline constexpr std::string_view kRecordChecksums = "stoke.record_checksums";  // I32 (all records)
inline constexpr std::string_view kMatrixChecksums = "stoke.matrix_checksums";  // I32 (all units of the others)
inline constexpr std::string_view kFiring = "stoke.firing";  // F16 (all records), optional: how often each fires
inline constexpr std::string_view kSeal = "stoke.seal";  // I32 (4): of header, records' and matrices' table, and itself

const char* layout_name(RecordLayout layout);
const char* encoding_name(DownEncoding encoding);

enum class StorePart { kGate, kRecords, kScales, kMins, kFactors };
std::string store_tensor_name(StorePart part, int64_t layer, bool experts);

// A tensor that is neither records nor checksums: its rows are checksummed by sixteen (the last by what is left).
struct MatrixUnits {
  size_t tensor = 0;        // index into ModelFile::tensors
  int64_t first = 0;        // its first checksum in the table
  int64_t count = 0;        // its checksums
  uint64_t unit_bytes = 0;  // of sixteen rows
};

struct NeuronStore {
  RecordLayout layout = RecordLayout::kSplit;
  DownEncoding down = DownEncoding::kRequantized;
  int64_t dim = 0;
  std::vector<RecordTable> tables;    // tables[l] is layer l's
  std::vector<MatrixUnits> matrices;  // in the order of the tensor table
  int64_t records = 0;                // of all layers
  int64_t matrix_units = 0;
  bool hot_first = false;     // neurons of a layer (or expert) that fire most come first
  int64_t firing_tokens = 0;  // 0: the store does not know how often its neurons fire
  Extent firing;
  Extent record_checksums, matrix_checksums, seal;
  uint64_t header_bytes = 0;  // before the first tensor

  uint64_t record_bytes() const;  // of all tables
};

// Has the key stoke.version.
bool is_neuron_store(const ModelFile& model);
// Makes the model look like the folder it came from: kind and texts. Requires: is_neuron_store.
Status restore_source_kind(ModelFile* model);
Result<NeuronStore> read_neuron_store(const ModelFile& model);

struct StoreChecksums {
  std::vector<uint32_t> records;   // by RecordTable::first_checksum
  std::vector<uint32_t> matrices;  // by MatrixUnits::first
};
// Reads both tables and holds them and the header against the seal; kCorrupt where one is damaged.
Result<StoreChecksums> load_store_checksums(ByteSource& file, const NeuronStore& store);

// Only the records', of an opened store: what the reads of a run are held against.
Result<std::vector<uint32_t>> load_record_checksums(const ModelFile& model);

// Share of tokens for which each record's gate fired, as halves in [0, 1], by RecordTable::first_checksum. Empty where
// the store does not know. They change what is kept in memory, never a bit.
Result<std::vector<uint16_t>> load_store_firing(ByteSource& file, const NeuronStore& store);

// Checksum of the pieces' checksums of the first `bytes` bytes.
Result<uint32_t> header_checksum(ByteSource& file, uint64_t bytes);

}  // namespace stoke::formats
