#include "text/chat_template.h"

#include <gtest/gtest.h>

namespace stoke::text {
namespace {

std::string render(std::string_view source, const std::string& messages) {
  auto made = ChatTemplate::create(source, "<s>", "</s>");
  if (!made.ok()) return "create: " + made.status().message();
  auto prompt = (*made)->render({.messages = messages}, nullptr);
  return prompt.ok() ? prompt->text() : "render: " + prompt.status().message();
}

TEST(ChatTemplate, Renders) {
  EXPECT_EQ(render("{{ bos_token }}{% for m in messages %}\n  {%- if m.role == 'user' %}[{{ m['content'].strip() }}]"
                   "{% endif %}{% endfor %}",
                   R"([{"role":"user","content":" hi "}])"),
            "<s>[hi]");
}

}  // namespace
}  // namespace stoke::text
