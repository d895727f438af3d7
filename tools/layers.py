#!/usr/bin/env python3
"""The layer test: reads every #include under src/ and include/ against the one table below.

A folder is a box of docs/ARCHITECTURE.md and an include is an arrow; arrows only go down. Unit tests (*_test.cc) and
fuzzers (*_fuzz.cc) stand beside their source and follow the same table. usage: tools/layers.py [ROOT]
"""
import os
import re
import sys

# What a folder may include, beside its own files. Peers are strangers: they meet only in a folder above both.
ALLOWED = {
    "base": set(),
    "sys": {"base"},
    "tensor": {"base"},
    "kernels": {"base", "tensor"},
    "formats": {"base", "sys", "tensor"},
    "kv": {"base", "sys", "tensor"},
    "io": {"base", "sys"},
    "cache": {"base", "tensor"},
    "plan": {"base", "tensor"},
    "text": {"base", "sys"},
    "sampling": {"base"},
    "model": {"base", "sys", "tensor", "kernels", "kv"},
    "pipeline": {"base", "sys", "tensor", "kernels", "io", "cache", "plan", "model"},
    "convert": {"base", "sys", "tensor", "kernels", "formats", "model", "engine"},
    "engine": {"base", "sys", "tensor", "kernels", "formats", "kv", "text", "sampling", "model", "io", "cache", "plan",
               "pipeline"},
    "fetch": {"base", "sys"},
    "cli": {"base", "sys", "formats", "convert", "engine", "fetch"},
}
# The public headers (include/stoke): the data they share with the inside is declared there, so any folder may.
PUBLIC = "stoke"
# Other people's headers that only some folders may see.
FOREIGN = {
    "CLI/": {"cli"},
    "curl/": {"fetch"},
    "openssl/": {"fetch"},
    "histedit.h": {"cli"},
    "immintrin.h": {"kernels", "sys"},
    "arm_neon.h": {"kernels"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def sources(top):
    """Every C++ file under `top` in a fixed order; symbolic links are not followed."""
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(d for d in folders if not os.path.islink(os.path.join(folder, d)) and d != "target")
        for name in sorted(names):
            if name.endswith((".cc", ".h")):
                yield os.path.join(folder, name)


def includes(path):
    """(line number, is quoted, target) of each include in a file."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1) == '"', match.group(2)


def check_target(folder, quoted, target):
    """What is wrong with an include of `target` from `folder`; empty where nothing is."""
    for prefix, owners in FOREIGN.items():
        if target.startswith(prefix) and folder not in owners:
            return f"<{target}> belongs to {', '.join(sorted(owners))} only"
    if not quoted:
        return ""
    top = target.split("/")[0]
    if "/" not in target or target.startswith("."):
        return f'"{target}": include by path from src/, for example "{folder}/{os.path.basename(target)}"'
    if top in (folder, PUBLIC):
        return ""
    if top not in ALLOWED:
        return f'"{target}": {top} is not in the table of tools/layers.py'
    if top not in ALLOWED[folder]:
        return f'"{target}": {folder} may include only {", ".join(sorted(ALLOWED[folder])) or "itself"}'
    return ""


def check_source_tree(root):
    problems = []
    src = os.path.join(root, "src")
    for path in sources(src):
        shown = os.path.relpath(path, root)
        folder = os.path.relpath(path, src).split(os.sep)[0]
        if folder not in ALLOWED:
            problems.append(f"{shown}:1: folder {folder} has no row in tools/layers.py; add it with its rank")
            continue
        for number, quoted, target in includes(path):
            wrong = check_target(folder, quoted, target)
            if wrong:
                problems.append(f"{shown}:{number}: {wrong}")
    return problems


def check_public_headers(root):
    """Public headers include the standard library and each other, so that they compile without the sources."""
    problems = []
    for path in sources(os.path.join(root, "include")):
        for number, quoted, target in includes(path):
            if quoted and not target.startswith(PUBLIC + "/"):
                problems.append(f'{os.path.relpath(path, root)}:{number}: a public header may not include "{target}"')
    return problems


def check_document(root):
    """docs/ARCHITECTURE.md has a table row for each folder of the table above, and no other."""
    path = os.path.join(root, "docs", "ARCHITECTURE.md")
    with open(path, encoding="utf-8") as file:
        rows = set(re.findall(r"^\| `(\w+)` \|", file.read(), re.M))
    return [f"docs/ARCHITECTURE.md:1: folder {name} stands only {'here' if name in rows else 'in tools/layers.py'}"
            for name in sorted(rows ^ set(ALLOWED))]


def check_acyclic():
    """The table itself must be a ranking: no folder reaches itself."""
    def reach(name, seen):
        for below in ALLOWED[name]:
            if below not in seen:
                seen.add(below)
                reach(below, seen)
        return seen
    looped = [name for name in ALLOWED if name in reach(name, set())]
    return [f"tools/layers.py:1: {name} includes itself through others" for name in looped]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    problems = check_acyclic() + check_source_tree(root) + check_public_headers(root) + check_document(root)
    print("\n".join(problems) if problems else "layers: every include goes down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
