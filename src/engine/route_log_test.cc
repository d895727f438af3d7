#include "engine/route_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

namespace stoke::engine {
namespace {

// Two of four layers have experts. A prompt's pass is not written, nor the last layer that its last token goes through
// alone.
TEST(RouteLog, DecodedTokens_LayerByLayer) {
  model::Config config;
  config.layers = 4;
  config.layer.resize(4);
  config.layer[1].moe = config.layer[3].moe = true;
  config.moe.experts = 8;
  config.moe.used = 2;
  const std::string path =
      std::filesystem::temp_directory_path() / ("stoke_routes_" + std::to_string(getpid()) + ".txt");
  {
    auto log = RouteLog::create(path, config);
    ASSERT_TRUE(log.ok()) << log.status().message();
    const auto chose = [&](int layer, int64_t tokens, const std::vector<model::ExpertUse>& uses) {
      EXPECT_TRUE((*log)->chose(layer, tokens, uses).ok());
    };
    chose(1, 2, {{0, 0, 1}, {0, 1, 1}, {5, 0, 1}, {6, 1, 1}});
    chose(3, 1, {{2, 0, 1}, {4, 0, 1}});
    for (int32_t token = 0; token < 2; ++token) {
      chose(1, 1, {{token, 0, 1}, {7, 0, 1}});
      chose(3, 1, {{token, 0, 1}, {3, 0, 1}});
    }
  }
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), "# firings: 4 layers of 8 neurons\n1 0 7\n3 0 3\n\n1 1 7\n3 1 3\n");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace stoke::engine
