#include "engine/ablation.h"

#include <fmt/format.h>

#include <array>

namespace stoke::engine {
namespace {

constexpr std::array kAblations = {
    Ablation{.name = "dense", .whole_layers = true, .keep = false, .hot = false},
    Ablation{.name = "bundles", .keep = false, .barriers = true, .hot = false},
    Ablation{.name = "cache", .barriers = true, .hot = false},
    Ablation{.name = "pipeline", .hot = false},
    Ablation{.name = "hot"},
    Ablation{.name = "flash", .barriers = true, .hot = false, .policy = cache::PolicyKind::kLru},
    Ablation{.name = "lru", .hot = false, .policy = cache::PolicyKind::kLru},
};

}  // namespace

Result<Ablation> find_ablation(const std::string& name) {
  if (name.empty()) return Ablation();
  std::string known;
  for (const Ablation& a : kAblations) {
    if (a.name == name) return a;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
  }
  return Status(Code::kInvalid, fmt::format("ablation '{}': there are {}", name, known));
}

}  // namespace stoke::engine
