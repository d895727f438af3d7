#include "pipeline/neuron_table.h"

#include <fmt/format.h>

#include "sys/checksum.h"

namespace stoke::pipeline {

bool NeuronTable::intact(int64_t neuron, const std::byte* record) const {
  return checksums.empty() || sys::checksum32(record, record_bytes()) == checksums[static_cast<size_t>(neuron)];
}

Status record_failure(const NeuronTable& table, int64_t neuron, int error, const char* ends, const char* failed) {
  const char* what = "its checksum does not match, twice";
  if (error < 0) what = ends;
  if (error > 0) what = failed;
  return Status(error > 0 ? Code::kIo : Code::kCorrupt,
                fmt::format("{}: layer {}, neuron {}, offset {}: {}{}{}", table.file->path(), table.records.layer,
                            neuron, table.records.offset_of(neuron), what, error > 0 ? ": " : "",
                            error > 0 ? sys::errno_text(error) : ""));
}

}  // namespace stoke::pipeline
