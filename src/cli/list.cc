// stoke list: the models that pull fetched.
#include <fmt/format.h>

#include <algorithm>

#include "cli/catalogue.h"
#include "cli/output.h"
#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {
namespace {

int run(bool json) {
  const auto entries = catalogue();
  if (!entries.ok()) return fail(entries.status());
  const fetch::StoreSettings settings = fetch::environment_settings();
  const std::vector<fetch::StoredModel> models = fetch::stored_models(*entries, settings);
  if (json) {
    Json all = Json::array();
    for (const fetch::StoredModel& model : models) {
      all.push_back({{"name", model.name}, {"path", model.path}, {"bytes", model.bytes}, {"files", model.files}});
    }
    print_json(Json{{"folder", settings.folder}, {"models", all}});
    return 0;
  }
  size_t width = 0;
  for (const fetch::StoredModel& model : models) width = std::max(width, model.name.size());
  for (const fetch::StoredModel& model : models) {
    fmt::print("{:<{}}  {:>9}\n", model.name, width, format_size(static_cast<int64_t>(model.bytes)));
  }
  if (models.empty()) tell("stoke: no models in {} yet; stoke pull --list names some\n", settings.folder);
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Context& context) {
  auto& json = context.make<bool>();
  auto* verb = app.add_subcommand("list", "the models that pull fetched, with their sizes");
  verb->add_flag("--json", json, "one JSON object: folder, and for each model name, path, bytes, files");
  verb->callback([&] { context.run([&json] { return run(json); }); });
}

}  // namespace stoke::cli
