#!/usr/bin/env python3
"""Tests of the checks themselves: each rule fires on a small example, and stays silent on its twin."""
import os
import tempfile
import unittest

import layers
import tidy


def messages(rule, path, text):
    return [message for _, message in rule(path, text)]


class Tidy(unittest.TestCase):
    def test_a_long_function_is_found_at_its_first_line(self):
        body = "".join(f"  f({i});\n" for i in range(80))
        text = "namespace a {\n\nstatic int g(int x) const {\n" + body + "}\n}  // namespace a\n"
        self.assertEqual(list(tidy.cpp_functions(tidy.strip_code(text))), [(3, 82)])
        self.assertEqual(len(messages(tidy.check_functions, "src/a.cc", text)), 1)

    def test_members_initialisers_and_lambdas_belong_to_their_function(self):
        text = ("A::A(int x)\n    : x_(x) {\n  auto f = [&](int y) { return y; };\n  if (x) {\n  }\n}\n"
                "struct B {\n  int x;\n};\n")
        self.assertEqual(list(tidy.cpp_functions(tidy.strip_code(text))), [(1, 6)])

    def test_braces_in_strings_and_comments_do_not_count(self):
        text = "void f() {\n  g(\"{{{\"); // {\n  h('{', R\"({{)\");\n}\nvoid k() {\n}\n"
        self.assertEqual(list(tidy.cpp_functions(tidy.strip_code(text))), [(1, 4), (5, 2)])

    def test_the_library_does_not_speak_but_the_program_may(self):
        text = "void f() { std::printf(\"x\"); }\n"
        self.assertEqual(len(messages(tidy.check_words, "src/engine/a.cc", text)), 1)
        self.assertEqual(messages(tidy.check_words, "src/cli/a.cc", text), [])
        self.assertEqual(messages(tidy.check_words, "src/engine/a.cc", "// calls printf()\nsnprintf(b);\n"), [])

    def test_kernels_own_nothing(self):
        self.assertEqual(len(messages(tidy.check_words, "src/kernels/a.cc", "int* p = new int[3];\n")), 1)

    def test_a_header_opens_with_a_comment(self):
        self.assertEqual(len(messages(tidy.check_header, "src/a.h", "#pragma once\n")), 1)
        self.assertEqual(messages(tidy.check_header, "src/a.h", "// What it is.\n#pragma once\n"), [])

    def test_machine_paths_are_found(self):
        self.assertEqual(len(messages(tidy.check_paths, "a.md", "see /" + "home/me/x\n")), 1)
        self.assertEqual(messages(tidy.check_paths, "a.md", "see docs/work/x and ~/work/x\n"), [])


class Layers(unittest.TestCase):
    def test_arrows_go_down_only(self):
        self.assertEqual(layers.check_target("model", True, "kernels/kernels.h"), "")
        self.assertIn("may include only", layers.check_target("kernels", True, "model/transformer.h"))
        self.assertIn("may include only", layers.check_target("model", True, "formats/gguf.h"))
        self.assertIn("not in the table", layers.check_target("model", True, "cash/x.h"))
        self.assertIn("by path", layers.check_target("model", True, "x.h"))

    def test_foreign_headers_have_owners(self):
        self.assertIn("belongs to", layers.check_target("model", False, "curl/curl.h"))
        self.assertEqual(layers.check_target("fetch", False, "curl/curl.h"), "")

    def test_public_headers_stand_alone(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(root + "/include/stoke")
            with open(root + "/include/stoke/a.h", "w", encoding="utf-8") as file:
                file.write('#include <vector>\n#include "stoke/b.h"\n#include "base/status.h"\n')
            self.assertEqual(len(layers.check_public_headers(root)), 1)

    def test_the_table_is_a_ranking(self):
        self.assertEqual(layers.check_acyclic(), [])


if __name__ == "__main__":
    unittest.main()
