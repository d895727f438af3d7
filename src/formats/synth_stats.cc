#include "formats/synth_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "formats/output_file.h"

namespace stoke::formats {

Status write_firing_stats(const SynthPlan& plan, const SynthShape& shape, const std::string& path) {
  if (!plan.fires()) {
    return Status(Code::kInvalid, fmt::format("--stats-out {}: only shapes with --ffn-act relu or drelu have neurons "
                                              "that fire",
                                              path));
  }
  STOKE_ASSIGN(const std::unique_ptr<OutputFile> file, OutputFile::create(path, 0));
  std::string text = fmt::format(R"({{"format": "stoke-firing-1", "model": "{}", "experts": {}, "neurons": {}, )"
                                 R"("layers": [)",
                                 shape.name, shape.experts, shape.ffn);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    char before = '[';
    if (layer > 0) text += ",\n";
    for (const float p : plan.probabilities(layer)) {
      fmt::format_to(std::back_inserter(text), "{}{:.4g}", before, p);
      before = ',';
    }
    text += ']';
    STOKE_TRY(file->append(std::as_bytes(std::span(text))));
    text.clear();
  }
  text = "]}\n";
  STOKE_TRY(file->append(std::as_bytes(std::span(text))));
  return file->finish();
}

}  // namespace stoke::formats
