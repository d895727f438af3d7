#!/usr/bin/env python3
"""House rules that a compiler does not check: sizes, banned words, headers that open as manuals, no machine paths.

Each rule is a function from a file to problems; the lists of exceptions are at the top. usage: tools/tidy.py [ROOT]
"""
import ast
import os
import re
import subprocess
import sys

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
LINE_COLUMNS_MAX = 120

# Generated files and plain tables, which may be long.
LONG_FILES = set()
# The library never prints or exits: only the program may, and CHECK, which stops a process that has a bug.
SPEAKERS = ("src/cli/", "src/base/check.cc")
# Threads share through few places; elsewhere one owner decides (docs/ARCHITECTURE.md).
SHARERS = ("src/sys/", "src/io/thread_reader.", "src/cli/", "src/fetch/", "src/engine/resident_source.",
           "src/pipeline/block_checker.h", "src/pipeline/layer_board.h", "src/pipeline/stream_source.h",
           "include/stoke/stoke.h")
# The preprocessor decides only where machines differ.
CONDITIONAL = ("src/sys/", "src/io/", "src/kernels/", "src/base/check.h")
# Paths of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(home|root|Users|opt|work|mnt|media)/\w")

SPEAKING = re.compile(r"\b(printf|fprintf|vprintf|puts|putchar|perror|exit|_exit|quick_exit|abort|terminate)\s*\(|"
                      r"\bstd::(cout|cerr|clog)\b|\bfmt::print\b")
SHARING = re.compile(r"#\s*include\s*<"
                     r"(mutex|shared_mutex|atomic|thread|condition_variable|future|semaphore|latch|barrier)>")
OWNING = re.compile(r"\b(malloc|calloc|realloc|free)\s*\(|\bnew\b(?!\s*\()|"
                    r"\bstd::(vector|string|map|unique_ptr|make_unique)\b")
DECISION = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b")
POSTPONED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|'
                      r'"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
NOT_FUNCTIONS = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b[^()]*$")
HEAD_OF_FUNCTION = re.compile(r"\)\s*(const|noexcept|override|final|mutable|->[^{;]*|:[^:].*|[&\s]|HWY_\w+)*$", re.S)


def strip_code(text):
    """The text with comments, strings and characters blanked; line breaks stay, so that line numbers do."""
    return NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def cpp_functions(code):
    """(first line, lines) of each function body at namespace or class scope in stripped code."""
    depth_inside, depth, start_of_head, line_of = 0, 0, 0, lambda at: code.count("\n", 0, at) + 1
    began = None
    for match in re.finditer(r"[{};]", code):
        at, mark = match.start(), match.group(0)
        if mark == "{":
            depth += 1
            head = re.sub(r"^\s*#.*$", "", code[start_of_head:at], flags=re.M)
            if began is None and HEAD_OF_FUNCTION.search(head.rstrip()) and not NOT_FUNCTIONS.search(head):
                began = start_of_head + len(head) - len(head.lstrip()) if head == code[start_of_head:at] else at
                depth_inside = depth
        elif mark == "}":
            if began is not None and depth == depth_inside:
                yield line_of(began), line_of(at) - line_of(began) + 1
                began = None
            depth -= 1
        start_of_head = at + 1


def check_functions(path, text):
    if path.endswith(".py"):
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        found = [(n.lineno, n.end_lineno - n.lineno + 1) for n in nodes]
    elif path.endswith((".cc", ".h")):
        found = list(cpp_functions(strip_code(text)))
    else:
        return
    for line, length in found:
        if length > FUNCTION_LINES_MAX:
            yield line, f"a function of {length} lines; at most {FUNCTION_LINES_MAX}: give its parts names"


def check_sizes(path, text):
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX and path not in LONG_FILES:
        yield FILE_LINES_MAX, f"a file of {len(lines)} lines; at most {FILE_LINES_MAX}: split it by what it does"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_COLUMNS_MAX and "http" not in line:
            yield number, f"{len(line)} columns; at most {LINE_COLUMNS_MAX}"


def check_header(path, text):
    if not path.endswith(".h"):
        return
    if not text.startswith(("//", "/*")):
        yield 1, "a header opens with a comment: what it is, which thread calls it, what it owns"
    if "#pragma once" not in text and "#ifndef" not in text and "HWY_TARGET" not in text:
        yield 1, "a header without #pragma once"


def words(pattern, text, message):
    for number, line in enumerate(text.splitlines(), 1):
        match = pattern.search(line)
        if match:
            yield number, message.format(word=match.group(0).strip())


def check_words(path, text):
    """Banned words; in code only, so that comments may speak of them."""
    if path.endswith((".cc", ".h")) and path.startswith(("src/", "include/")):
        code = strip_code(text)
        test = path.endswith(("_test.cc", "_fuzz.cc", "test_util.h"))
        if not test and not path.startswith(SPEAKERS):
            yield from words(SPEAKING, code, "{word} outside the program: return a Status instead")
        if not test and not path.startswith(SHARERS):
            yield from words(SHARING, code, "{word} outside the allow-list (SHARERS in tools/tidy.py)")
        if not test and path.startswith("src/kernels/"):
            yield from words(OWNING, code, "{word} in a kernel: pointers in, values out")
        if not path.startswith(CONDITIONAL) and path.startswith("src/"):
            yield from words(DECISION, code, "{word} outside sys, io and kernels: one reading for the rest")
    if path != "tools/tidy.py":
        yield from words(POSTPONED, text, "{word}: decide it, or write it into docs/ROADMAP.md")


def check_paths(path, text):
    yield from words(MACHINE_PATH, text, "{word}...: a path of one machine")


RULES = (check_functions, check_sizes, check_header, check_words, check_paths)
SUFFIXES = (".cc", ".h", ".c", ".py", ".md", ".txt", ".cmake", ".sh", ".rs", ".toml", ".in")
# Data, and text that tests feed to the tokenizer.
DATA_FOLDERS = ("tests/data/", "tests/golden/", "tests/fuzz/corpus/")


def tracked_files(root):
    """Files that git tracks and that rules apply to."""
    listing = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=False)
    names = listing.stdout.decode().split("\0") if listing.returncode == 0 else []
    for name in names:
        rule_bound = name.endswith(SUFFIXES) or name.startswith(("scripts/", ".ci/"))
        if rule_bound and not name.startswith(DATA_FOLDERS) and os.path.isfile(os.path.join(root, name)):
            yield name


def check_file(path, text):
    rules = RULES if path.endswith((".cc", ".h", ".c", ".py")) else (check_paths,)
    return [f"{path}:{line}: {message}" for rule in rules for line, message in rule(path, text)]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    problems, count = [], 0
    for path in tracked_files(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            problems += check_file(path, file.read())
        count += 1
    if count == 0:
        problems.append(f"{root}: no tracked files found; run this in a git checkout")
    print("\n".join(problems) if problems else f"tidy: {count} files follow the house rules")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
