#include "fetch/store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "fetch/digest.h"
#include "sys/files.h"

namespace stoke::fetch {
namespace {

const StoreSettings kSettings = {"/store", "https://hub.example", "secret"};

TEST(Store, HubName_BecomesUrlAndPath) {
  const auto files = find_model("hf:owner/repo/dir/model.gguf", {}, kSettings);
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->size(), 1U);
  EXPECT_EQ(files->front().url, "https://hub.example/owner/repo/resolve/main/dir/model.gguf");
  EXPECT_EQ(files->front().path, "/store/owner/repo/dir/model.gguf");
  EXPECT_EQ(files->front().token, "secret");
  EXPECT_EQ(find_model("hf:owner/repo@v2/m.gguf", {}, kSettings)->front().url,
            "https://hub.example/owner/repo/resolve/v2/m.gguf");
}

TEST(Store, Url_GetsNoToken) {
  const auto files = find_model("https://else.example/a/b.gguf?x=1", {}, kSettings);
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->front().path, "/store/b.gguf");
  EXPECT_EQ(files->front().token, "");
}

TEST(Store, SplitModel_NamesAllParts) {
  const auto files = find_model("https://x.example/big-00002-of-00003.gguf?download=1", {}, kSettings);
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->size(), 3U);
  EXPECT_EQ((*files)[0].url, "https://x.example/big-00001-of-00003.gguf?download=1");
  EXPECT_EQ((*files)[2].path, "/store/big-00003-of-00003.gguf");
}

TEST(Store, Names_MayNotLeaveTheStore) {
  for (const char* name : {"hf:../../x/y", "hf:owner/repo/../../../x", "hf:owner/repo/.hidden", "hf:owner//x",
                           "hf:owner/repo", "hf:", "https://x.example", "https://x.example/", "https://x.example/.."}) {
    EXPECT_EQ(find_model(name, {}, kSettings).status().code(), Code::kInvalid) << name;
  }
}

TEST(Store, Catalogue_GivesSourceChecksumAndSize) {
  const std::string sha(64, 'A');
  const auto catalogue = parse_catalogue(R"({"models": {"small": {"source": "hf:o/r/s.gguf", "licence": "apache-2.0",
      "size": 12, "sha256": ")" + sha + R"("}}})");
  ASSERT_TRUE(catalogue.ok()) << catalogue.status().message();
  EXPECT_TRUE(is_remote_name("small", *catalogue));
  EXPECT_FALSE(is_remote_name("small.gguf", *catalogue));
  const auto files = find_model("small", *catalogue, kSettings);
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->front().sha256, std::string(64, 'a'));
  EXPECT_EQ(files->front().size, 12U);
  const Status unknown = find_model("smal", *catalogue, kSettings).status();
  EXPECT_EQ(unknown.code(), Code::kNotFound);
  EXPECT_NE(unknown.message().find("known are small"), std::string::npos);
}

TEST(Store, Catalogue_RefusesNonsense) {
  for (const char* text : {"", "[]", "{}", R"({"models": 3})", R"({"models": {"x": {}}})",
                           R"({"models": {"x": {"source": "hf:a/b/c", "licence": "l", "sha256": "12"}}})",
                           R"({"models": {"x": {"source": "hf:a/b/c", "licence": "l", "size": "big"}}})"}) {
    EXPECT_EQ(parse_catalogue(text).status().code(), Code::kCorrupt) << text;
  }
}

TEST(Store, ShippedCatalogue_IsSound) {
  const auto catalogue = load_catalogue("data/catalogue.json");
  ASSERT_TRUE(catalogue.ok()) << catalogue.status().message();
  EXPECT_GE(catalogue->size(), 5U);
  for (const CatalogueEntry& entry : *catalogue) {
    EXPECT_TRUE(find_model(entry.name, *catalogue, kSettings).ok()) << entry.name;
  }
}

TEST(Store, SimilarNames_BeginMostAlike) {
  const std::vector<CatalogueEntry> catalogue = {
      {.name = "qwen3-8b"}, {.name = "smollm2-360m"}, {.name = "smollm2-1b"}};
  EXPECT_EQ(similar_names("smollm2", catalogue), (std::vector<std::string>{"smollm2-360m", "smollm2-1b"}));
  EXPECT_EQ(similar_names("smollm2-1.5b", catalogue), std::vector<std::string>{"smollm2-1b"});
  EXPECT_EQ(similar_names("qwen2", catalogue), std::vector<std::string>{"qwen3-8b"});
  EXPECT_TRUE(similar_names("qw", catalogue).empty());
  EXPECT_TRUE(similar_names("gemma", catalogue).empty());
}

TEST(Store, PartPaths_AreOfTheWholeSplitModel) {
  EXPECT_EQ(part_paths("a#/m-00002-of-00002.gguf"),
            (std::vector<std::string>{"a#/m-00001-of-00002.gguf", "a#/m-00002-of-00002.gguf"}));
  EXPECT_EQ(part_paths("a/m.gguf"), std::vector<std::string>{"a/m.gguf"});
}

TEST(Store, StoredModels_AreThoseThatAreWhole) {
  const StoreSettings settings = {testing::TempDir() + std::to_string(getpid()) + "stored_models_test",
                                  "https://hub.example", ""};
  std::filesystem::remove_all(settings.folder);
  EXPECT_TRUE(stored_models({}, settings).empty());
  const auto put = [&](const std::string& path) {
    const std::filesystem::path file = settings.folder + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    EXPECT_TRUE(sys::write_file_atomic(file.string(), "abc").ok());
  };
  for (const char* path : {"o/r/known.gguf", "o/r/sub/other.stoke", "url.gguf", "o/r/half.gguf.part", "o/r/notes.txt",
                           "two-00001-of-00002.gguf", "two-00002-of-00002.gguf", "lacks-00001-of-00002.gguf"}) {
    put(path);
  }
  const std::vector<CatalogueEntry> catalogue = {{.name = "absent", .source = "hf:o/r/absent.gguf"},
                                                 {.name = "known", .source = "hf:o/r/known.gguf"}};
  std::vector<std::string> found;
  for (const StoredModel& model : stored_models(catalogue, settings)) {
    found.push_back(model.name);
    EXPECT_EQ(model.bytes, 3U * static_cast<uint64_t>(model.files)) << model.name;
  }
  EXPECT_EQ(found,
            (std::vector<std::string>{"known", "hf:o/r/sub/other.stoke", settings.folder + "/two-00001-of-00002.gguf",
                                      settings.folder + "/url.gguf"}));
  std::filesystem::remove_all(settings.folder);
}

TEST(Digest, KnownAnswer) {
  const std::string path = testing::TempDir() + std::to_string(getpid()) + "digest_test_file";
  ASSERT_TRUE(sys::write_file_atomic(path, "abc").ok());
  EXPECT_EQ(sha256_file(path, {}).value(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_file(path, [](uint64_t) { return false; }).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace stoke::fetch
