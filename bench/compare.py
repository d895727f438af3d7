#!/usr/bin/env python3
"""Compares stoke with llama.cpp: same files, same threads, alternated in one run, medians.

The machine's DRAM read rate and int8 peak are measured by `stoke profile` before and after, so that shares refer to
the machine as it was. Models are made by `stoke synth` in --work and deleted after use unless --keep.

usage: bench/compare.py --llama DIR [--stoke PATH] [--work DIR] [--smollm2 FILE] [--rows a,b,...] [--pairs N]
Prints one markdown table; --json FILE writes every sample too.
"""
import argparse
import json
import math
import os
import sys

from harness import Failed, GgufSizes, Peer, Stoke, chill, median, warm

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
PROMPT = "The quick brown fox jumps over the lazy dog."
ROWS = ("rates", "types", "batch", "load", "context")
# What is asked of stoke, as a multiple of the peer's rate.
ASKED_RATES = {("decode", "llama-7b"): 1.0, ("decode", "smollm2"): 1.5, ("decode", "gemma-270m"): 1.4,
               ("prefill", "llama-7b"): 1.9, ("prefill", "smollm2"): 3.5}
ASKED_TYPES = {"q4_1": 1.3, "q8_0": 1.3, "f16": 1.1, "q4_0": 1.3, "q4_k_m": 1.3, "q3_k_m": 1.3, "q6_k": 1.3,
               "q5_k_m": 1.3, "iq4_xs": 1.3}
ASKED_TYPES_MEAN = 1.9
ASKED_BATCH = 4.0
ASKED_DRAM_SHARE = 0.93
ASKED_INT8_SHARE = 0.50
ASKED_RESIDENT = 1.05


class Report:
    """The table's rows, and the samples behind them."""

    def __init__(self):
        self.rows = []

    def add(self, work, stoke, peer, unit, ratio, asked, note="", samples=None):
        row = {"work": work, "stoke": stoke, "peer": peer, "unit": unit, "ratio": ratio, "asked": asked, "note": note,
               "samples": samples or {}}
        self.rows.append(row)
        print(f"compare: {work}: stoke {show(stoke)}, llama.cpp {show(peer)} {unit}, ratio {show(ratio)}",
              file=sys.stderr)

    def markdown(self):
        lines = ["| work | stoke | llama.cpp | unit | ratio | asked | |", "|---|---|---|---|---|---|---|"]
        for r in self.rows:
            cells = [r["work"], show(r["stoke"]), show(r["peer"]), r["unit"], show(r["ratio"]), r["asked"], r["note"]]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def show(number):
    if number is None:
        return "-"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def over(a, b):
    """a / b; None where either is missing: the peer may fail on a file, and then its column says so."""
    return a / b if a and b else None


def at_least(multiple):
    return f">= {multiple:g}x" if multiple else ""


class Comparison:
    def __init__(self, options):
        self.options = options
        self.stoke = Stoke(options.stoke, options.threads, options.isa)
        self.peer = Peer(options.llama, options.threads)
        self.report = Report()
        self.made = set()
        self.profiles = [self.stoke.profile()]

    # -- models

    def make(self, shape, kind, layers=0):
        cut = f"-{layers}l" if layers else ""
        path = os.path.join(self.options.work, f"{shape}{cut}.{kind}.gguf")
        if not os.path.exists(path):
            os.makedirs(self.options.work, exist_ok=True)
            self.stoke.synth(shape, path + ".part", kind, layers)
            os.rename(path + ".part", path)
            self.made.add(path)
        return path

    def drop(self, path):
        """Deletes a model that this run made."""
        if path in self.made and not self.options.keep:
            self.made.discard(path)
            os.remove(path)

    # -- measuring

    def alternate(self, ours, theirs):
        """Samples of both, taken in turn; who goes first changes each round, so that drift favours nobody."""
        a, b = [], []
        for round_ in range(self.options.pairs):
            order = ((a, ours), (b, theirs)) if round_ % 2 == 0 else ((b, theirs), (a, ours))
            for samples, measure in order:
                try:
                    samples.append(measure())
                except Failed as failure:
                    if samples is a:
                        raise
                    print(f"compare: llama.cpp: {failure}", file=sys.stderr)
        return a, b

    def dram_rate(self):
        return max(p["dram_read_bytes_per_s"] for p in self.profiles)

    def int8_peaks(self):
        """The best seen of each kind of int8 instruction."""
        names = self.profiles[0]["int8_ops_per_s"]
        return {name: max(p["int8_ops_per_s"][name] for p in self.profiles) for name in names}

    def rates(self):
        """Decode 128 and prefill 512 of a 7B shape, SmolLM2, and a small Gemma shape."""
        for name, path in (("llama-7b", self.make("llama-7b", "q4_0")), ("smollm2", self.options.smollm2),
                           ("gemma-270m", self.make("gemma-270m", "q4_k_m"))):
            ours, theirs = self.alternate(lambda p=path: self.stoke.rates(p, 512, 128),
                                          lambda p=path: self.peer.rates(p, 512, 128))
            self.profiles.append(self.stoke.profile())
            sizes = GgufSizes(path)
            for index, phase in ((1, "decode"), (0, "prefill")):
                self.add_rate(phase, name, [s[index] for s in ours], [s[index] for s in theirs], sizes)

    def add_rate(self, phase, name, ours, theirs, sizes):
        stoke, peer = median(ours), median(theirs)
        if phase == "decode":
            share, asked_share = stoke * sizes.bytes / self.dram_rate(), ASKED_DRAM_SHARE
            note = f"{stoke * sizes.bytes / 1e9:.1f} GB/s of weights, {share:.0%} of the DRAM read rate"
        else:
            rate, asked_share = stoke * 2 * sizes.weights, ASKED_INT8_SHARE
            shares = [f"{rate / peak:.0%} of the {name} peak" for name, peak in self.int8_peaks().items()]
            note = f"{rate / 1e9:.0f} GOPS, " + ", ".join(shares)
        asked = at_least(ASKED_RATES.get((phase, name), 0))
        if name == "llama-7b":
            asked += f", >= {asked_share:.0%}"
        self.report.add(f"{phase} {name}", stoke, peer, "tok/s", over(stoke, peer), asked, note,
                        {"stoke": ours, "llama.cpp": theirs})

    def types(self):
        """Prefill of 128 tokens through six layers of the 7B shape, in each type."""
        ratios = []
        for kind, asked in ASKED_TYPES.items():
            path = self.make("llama-7b", kind, layers=6)
            ours, theirs = self.alternate(lambda p=path: self.stoke.rates(p, 128, 0)[0],
                                          lambda p=path: self.peer.rates(p, 128, 0)[0])
            ratio = over(median(ours), median(theirs))
            self.report.add(f"pp128 6-layer 7B {kind}", median(ours), median(theirs), "tok/s", ratio, at_least(asked),
                            "", {"stoke": ours, "llama.cpp": theirs})
            if kind != "f16" and ratio:
                ratios.append(ratio)
            self.drop(path)
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        self.report.add("pp128 quantised types, geometric mean", None, None, "", mean, at_least(ASKED_TYPES_MEAN))

    def batch(self):
        """Eight sequences decoding together against one: stoke alone, in total tokens a second."""
        path = self.make("llama-7b", "q4_0")
        one, eight = [], []
        for _ in range(self.options.pairs):
            one.append(self.stoke.rates(path, 16, 64)[1])
            eight.append(self.stoke.rates(path, 16, 64, ["--parallel", "8"])[1])
        self.report.add("decode llama-7b, 8 sequences (against 1)", median(eight), median(one), "tok/s",
                        over(median(eight), median(one)), at_least(ASKED_BATCH),
                        "both columns are stoke: 8 sequences, 1 sequence", {"eight": eight, "one": one})

    def load(self):
        """From the start of the process to the first token, file cached and not; and resident bytes."""
        path = self.make("llama-7b", "q4_0")
        for state, prepare in (("warm", warm), ("cold", chill)):
            left = []

            def first_token(program, prepare=prepare, left=left):
                left.append(prepare(path))
                return program.first_token(path, PROMPT)[0]

            a, b = self.alternate(lambda f=first_token: f(self.stoke), lambda f=first_token: f(self.peer))
            self.report.add(f"time to first token llama-7b, {state}", median(a), median(b), "s",
                            over(median(a), median(b)), "<= 1x", f"{max(left):.0%} of the file cached before",
                            {"stoke": a, "llama.cpp": b})
        size = os.path.getsize(path)
        ours, theirs = self.alternate(lambda: self.stoke.resident(path), lambda: self.peer.first_token(path, PROMPT)[1])
        self.report.add("resident bytes llama-7b over its file", over(median(ours), size), over(median(theirs), size),
                        "x", over(median(ours), median(theirs)), f"<= {ASKED_RESIDENT}x",
                        "stoke: anonymous and locked; llama.cpp: peak RSS with its mapping")

    def context(self):
        """Decode against the length of the context, on a grouped-heads shape of six layers."""
        path = self.make("mistral-7b", "q4_0", layers=6)
        for depth in self.options.depths:
            ours, theirs = self.alternate(lambda d=depth: self.stoke.rates(path, 0, 32, ["--depth", str(d)])[1],
                                          lambda d=depth: self.peer.rates(path, 0, 32, depth=d)[1])
            self.report.add(f"decode 6-layer mistral-7b at {depth}", median(ours), median(theirs), "tok/s",
                            over(median(ours), median(theirs)), "", "", {"stoke": ours, "llama.cpp": theirs})

    def run(self):
        try:
            for row in self.options.rows:
                getattr(self, row)()
            self.profiles.append(self.stoke.profile())
        finally:
            for path in sorted(self.made):
                self.drop(path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True, help="folder of llama.cpp's binaries")
    parser.add_argument("--stoke", default=os.path.join(ROOT, "build/release/stoke"))
    parser.add_argument("--work", default=os.path.join(ROOT, "models/bench"), help="folder for synthetic models")
    parser.add_argument("--smollm2", default=os.path.join(ROOT, "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
                        help="the model that scripts/fetch_model fetches")
    parser.add_argument("--rows", default=",".join(ROWS), help="which of " + ", ".join(ROWS))
    parser.add_argument("--pairs", type=int, default=3, help="alternations of a row")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both programs")
    parser.add_argument("--isa", help="stoke's instruction set, for a llama.cpp that was built for that one")
    parser.add_argument("--depths", default="0,1024,4096,16384", help="context lengths of the context row")
    parser.add_argument("--keep", action="store_true", help="keep the synthetic models")
    parser.add_argument("--json", help="file for all samples")
    options = parser.parse_args()
    options.rows = options.rows.split(",")
    options.depths = [int(d) for d in options.depths.split(",")]
    options.work = os.path.abspath(options.work)
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    return options


def main():
    options = parse()
    try:
        comparison = Comparison(options)
        comparison.run()
    except Failed as failure:
        raise SystemExit(f"compare: {failure}") from failure
    peaks = ", ".join(f"{name} {rate / 1e12:.2f} TOPS" for name, rate in comparison.int8_peaks().items())
    print(f"{options.threads} threads, {options.pairs} alternations, medians; DRAM read "
          f"{comparison.dram_rate() / 1e9:.1f} GB/s, {peaks}\n")
    print(comparison.report.markdown())
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"rows": comparison.report.rows, "profiles": comparison.profiles}, file, indent=1)


if __name__ == "__main__":
    main()
