// Neuron stores whose checksums are right and whose claims are not: what anyone can write who reads docs/FORMAT.md.
//
// The input's first byte chooses one of a few tiny stores, which are made when the fuzzer starts; the rest are patches
// of it. What still opens as a store gets checksums and a seal anew, so that everything behind them sees the claims:
// verification, inspection, and a run of the whole engine. Every failure is one line. Where the second byte is odd
// nothing is sealed: the checksums then have to find what the patches did.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "convert/convert.h"
#include "formats/gguf.h"
#include "formats/neuron_store.h"
#include "formats/store_header.h"
#include "formats/store_verify.h"
#include "formats/synth.h"
#include "stoke/stoke.h"
#include "sys/checksum.h"
#include "sys/files.h"

namespace {

using namespace stoke;
using namespace stoke::formats;

constexpr int64_t kMemoryBytes = int64_t{1} << 30;

SynthShape tiny_shape(const char* arch, const char* activation, int64_t experts) {
  SynthShape shape = *free_shape(arch);
  shape.layers = 2;
  shape.dim = 128;  // the least of a model whose neurons fire
  shape.heads = 2;
  shape.ffn = 64;
  shape.vocab = 300;
  shape.context = 64;
  shape.experts = experts;
  shape.experts_used = experts > 0 ? 2 : 0;
  shape.activation = activation;
  return shape;
}

// Tiny stores of every kind: with and without experts, split and bundled, requantised and with codes.
std::vector<std::string> make_stores() {
  const std::string folder = std::filesystem::temp_directory_path() / ("stoke_fuzz_store" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string model = folder + "/m.gguf";
  const std::string store = folder + "/m.stoke";
  std::vector<std::string> stores;
  const auto keep = [&] {
    stores.push_back(*sys::read_file(store));
    std::filesystem::remove(store);
  };
  const auto synth = [](const SynthShape& shape, const std::string& path) {
    CHECK(write_synth({.shape = shape, .type = "q8_0", .seed = 3, .output = path}).ok());
  };
  synth(tiny_shape("llama", "relu", 0), store);
  keep();
  synth(tiny_shape("qwen3moe", "drelu", 4), store);
  keep();
  synth(tiny_shape("llama", "relu", 0), model);
  for (const RecordLayout layout : {RecordLayout::kSplit, RecordLayout::kBundle}) {
    for (const char* down : {"q4_0", "codes"}) {
      CHECK(convert::convert({.model = model, .output = store, .layout = layout, .down = down}).ok());
      keep();
    }
  }
  std::filesystem::remove_all(folder);
  return stores;
}

struct Base {
  std::string bytes;
  uint64_t header_bytes = 0;
};

const std::vector<Base>& bases() {
  static const std::vector<Base> all = [] {
    std::vector<Base> out;
    for (std::string& bytes : make_stores()) {
      MemoryFiles files;
      files.add("m.stoke", bytes);
      const auto store = read_neuron_store(*open_gguf(files, "m.stoke"));
      out.push_back({std::move(bytes), store->header_bytes});
    }
    return out;
  }();
  return all;
}

// A patch is: how many bytes (low three bits) and where (above: the header, else anywhere), a place, the bytes.
std::string patched(const Base& base, std::span<const uint8_t> patches) {
  std::string bytes = base.bytes;
  while (patches.size() > 3) {
    const size_t count = (patches[0] & 7) + size_t{1};
    const size_t place = patches[1] + size_t{patches[2]} * 256;
    const bool anywhere = (patches[0] & 128) != 0;
    patches = patches.subspan(3);
    const auto values = patches.first(std::min(count, patches.size()));
    patches = patches.subspan(values.size());
    size_t at = anywhere ? place * bytes.size() / 65536 : place % base.header_bytes;
    for (const uint8_t value : values) {
      if (at < bytes.size()) bytes[at++] = static_cast<char>(value);
    }
  }
  return bytes;
}

// Checksums of everything as it is now, and the seal over them.
void seal(const ModelFile& model, const NeuronStore& store, std::string* bytes) {
  const auto part = [bytes](uint64_t offset, uint64_t size) {
    return std::as_bytes(std::span(*bytes)).subspan(offset, size);
  };
  const auto put = [bytes](const Extent& extent, const std::vector<uint32_t>& numbers) {
    std::memcpy(bytes->data() + extent.offset, numbers.data(), numbers.size() * sizeof(uint32_t));
    return sys::checksum32(numbers.data(), numbers.size() * sizeof(uint32_t));
  };
  StoreChecksums checksums;
  for (const RecordTable& table : store.tables) {
    add_checksums(part(table.offset, table.bytes()), table.record.record_bytes, &checksums.records);
  }
  for (const MatrixUnits& units : store.matrices) {
    const Extent& extent = model.tensors[units.tensor].extent;
    add_checksums(part(extent.offset, extent.bytes), units.unit_bytes, &checksums.matrices);
  }
  std::vector<uint32_t> pieces;
  add_checksums(part(0, store.header_bytes), kHeaderPieceBytes, &pieces);
  std::vector<uint32_t> numbers = {sys::checksum32(pieces.data(), pieces.size() * sizeof(uint32_t)),
                                   put(store.record_checksums, checksums.records),
                                   put(store.matrix_checksums, checksums.matrices)};
  numbers.push_back(sys::checksum32(numbers.data(), 3 * sizeof(uint32_t)));
  put(store.seal, numbers);
}

void one_line(const Status& status) {
  CHECK(status.ok() || (!status.message().empty() && status.message().find('\n') == std::string::npos));
}

// A file without a place on a disk, under a path that every part of the engine can open.
class Scratch {
 public:
  explicit Scratch(const std::string& bytes) : fd_(memfd_create("stoke_fuzz", 0)) {
    CHECK(fd_ >= 0 && write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    path_ = "/proc/self/fd/" + std::to_string(fd_);
  }
  ~Scratch() { close(fd_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

Status run(const std::string& path) {
  const ModelOptions options{.memory_bytes = kMemoryBytes, .context = 16, .threads = 1, .batch = 4};
  one_line(inspect(path, options).status());
  STOKE_ASSIGN(const auto model, Model::open(path, options));
  STOKE_ASSIGN(const auto session, model->new_session());
  STOKE_TRY(session->prefill(std::vector<int32_t>{1, 2, 3, 4, 5}));
  return session->generate({.max_tokens = 2, .ignore_eos = true}).status();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string bytes = patched(bases()[data[0] % bases().size()], std::span(data + 2, size - 2));
  MemoryFiles files;
  files.add("m.stoke", bytes);
  const auto model = open_gguf(files, "m.stoke");
  one_line(model.status());
  if (!model.ok() || !is_neuron_store(*model)) return 0;
  const auto store = read_neuron_store(*model);
  one_line(store.status());
  if (!store.ok()) return 0;
  const bool sealed = data[1] % 2 == 0;
  if (sealed) seal(*model, *store, &bytes);
  const Scratch file(bytes);
  const auto opened = open_model_file(file.path());
  one_line(opened.status());
  if (!opened.ok()) return 0;
  const auto again = read_neuron_store(*opened);
  CHECK(again.ok());
  const Status verified = verify_store(*opened, *again, nullptr);
  CHECK(verified.ok() || !sealed);
  one_line(verified);
  one_line(run(file.path()));
  return 0;
}
