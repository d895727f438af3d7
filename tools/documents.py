#!/usr/bin/env python3
"""Keeps documents true where a program can tell: tables that mirror one in the source, and links between files.

docs/models.md names every element type with its size and every family; docs/cli.md has a row for every verb; every
relative link of a tracked Markdown file leads somewhere. usage: tools/documents.py [ROOT]
"""
import os
import re
import subprocess
import sys


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def missing(document, text, wanted, source):
    return [f"{document}:1: {item} of {source} is not in its table" for item in wanted if item not in text]


def check_types(root):
    """Each title of tensor/dtype.cc, with the bytes of its block struct in tensor/blocks.h."""
    rows = re.findall(r'\{DType::k\w+, "\w+", "(\w+)", \d+, (\d+), ([^,]+),', read(root, "src/tensor/dtype.cc"))
    blocks = dict(re.findall(r"static_assert\(sizeof\((\w+)\) == (\d+)", read(root, "src/tensor/blocks.h")))
    wanted = []
    for title, elements, size in rows:
        struct = re.match(r"sizeof\((\w+)\)", size)
        number = blocks.get(struct.group(1), "?") if struct else size
        wanted.append(f"| {title} | {number} / {elements} |")
    return missing("docs/models.md", read(root, "docs/models.md"), wanted, "src/tensor/dtype.cc") or (
        [] if len(rows) > 10 else ["tools/documents.py:1: cannot read the table of src/tensor/dtype.cc"])


def check_families(root):
    """Each row of model/family.cc by its name and its two keys."""
    rows = re.findall(r'\{\.name = "([^"]+)", \.gguf_arch = ("[^"]+"|nullptr), \.hf_type = ("[^"]+"|nullptr)',
                      read(root, "src/model/family.cc"))
    text = read(root, "docs/models.md")
    problems = [] if len(rows) > 5 else ["tools/documents.py:1: cannot read the table of src/model/family.cc"]
    for name, arch, kind in rows:
        row = re.search(rf"^\| {re.escape(name)} \|.*$", text, re.M)
        keys = [key.strip('"') for key in (arch, kind) if key != "nullptr"]
        if not row or any(f"`{key}`" not in row.group(0) for key in keys):
            problems.append(f"docs/models.md:1: family {name} of src/model/family.cc has no right row")
    return problems


def check_verbs(root):
    verbs = re.findall(r"^void add_(\w+)\(", read(root, "src/cli/verbs.h"), re.M)
    return missing("docs/cli.md", read(root, "docs/cli.md"), [f"| `stoke {verb}" for verb in verbs], "src/cli/verbs.h")


def check_links(root):
    problems = []
    listing = subprocess.run(["git", "-C", root, "ls-files", "*.md"], capture_output=True, check=True, text=True)
    for path in listing.stdout.split():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(root, path)):
            if "://" not in target and not os.path.exists(os.path.join(root, os.path.dirname(path), target)):
                problems.append(f"{path}:1: the link to {target} leads nowhere")
    return problems


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    problems = check_types(root) + check_families(root) + check_verbs(root) + check_links(root)
    print("\n".join(problems) if problems else "documents: tables and links are true")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
