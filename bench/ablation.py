#!/usr/bin/env python3
"""The paper's ablation (PowerInfer-2, figure 14) and LLM in a Flash, as switches of one program: tok/s of every step.

A store of the ReLU 7B shape at 2500 MiB, and, with --real, a real ReLU model at 110 MiB. Steps are alternated, each run
under a memory limit of its budget and 48 MiB (needs root), from a cold page cache; medians. The dense step decodes an
eighth of the tokens. All steps must give the same tokens. The real model's are drawn with a fixed seed: its greedy text
soon goes round in a circle, where LRU cannot miss.

With --policies: hit rates of the cache's policies on what fired in a run, from an empty cache with the number of slots
that the engine had at the end, beside the engine's own (which began with the prompt and with more slots: the KV cache
takes some as it grows).

usage: bench/ablation.py [--stoke PATH] [--work DIR] [--real GGUF] [--rows synth,real] [--rounds N] [--tokens N]
           [--layers N] [--memory SIZE] [--policies] [--keep] [--json FILE]
--layers cuts the shape short, --memory is its budget then. Prints markdown; --json FILE writes every sample too.
"""
import argparse
import json
import os
import subprocess
import sys

from harness import Failed, chill, limited, median, run

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
PROMPT = "The quick brown fox jumps over the lazy dog and"
MARGIN = 48 << 20
MIB = 1 << 20
# Each step with the paper's gain over the one before.
STEPS = (("dense", None), ("bundles", 2.73), ("cache", 3.83), ("pipeline", 2.30), ("hot", 1.15))
# What `hot` is held against, with the paper's gain over it.
BASELINES = (("flash", 3.84), ("lru", None))
POLICIES = (("lfu", "pipeline"), ("lru", "lru"), ("s3_fifo", None), ("window_5", None), ("static", None),
            ("belady", None))


def parse_size(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(float(text[:-1]) * (1 << units[text[-1]])) if text[-1] in units else int(text)


class Ablation:
    """One store, one budget, and what its runs gave."""

    def __init__(self, options, title, store, memory, flags):
        self.options = options
        self.title = title
        self.store = store
        self.memory = memory
        self.flags = flags
        self.samples = {}
        self.longest = []  # tokens of the longest run

    def run(self, step, tokens, extra=()):
        chill(self.store)
        command = [self.options.stoke, "run", self.store, "-p", PROMPT, "-n", tokens, "--ignore-eos", *self.flags,
                   "--memory", self.memory, "--ablation", step, "-q", "--json", *extra]
        out, peak = limited(command, self.memory + MARGIN, 1800)
        report = json.loads(out)
        self.compare(step, report["tokens"])
        sample = {**report["stats"], "logits_hash": report["logits_hash"], "charged_peak": peak}
        print(f"ablation: {self.title}: {step}: {sample['decode_tokens_per_s']:.2f} tok/s", file=sys.stderr)
        return sample

    def compare(self, step, tokens):
        common = min(len(tokens), len(self.longest))
        if tokens[:common] != self.longest[:common]:
            raise Failed(f"{self.store}: the step {step} gives other tokens than the steps before it")
        self.longest = max(self.longest, tokens, key=len)

    def measure(self):
        names = [name for name, _ in STEPS + BASELINES]
        for number in range(self.options.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                tokens = max(8, self.options.tokens // 8) if name == "dense" else self.options.tokens
                self.samples.setdefault(name, []).append(self.run(name, tokens))
        hashes = {s["logits_hash"] for name, all_of in self.samples.items() if name != "dense" for s in all_of}
        if len(hashes) != 1:
            raise Failed(f"{self.store}: steps give the same tokens from different logits: {sorted(hashes)}")

    def table(self):
        lines = [f"{self.title}: {self.options.rounds} rounds of {self.options.tokens} tokens, logits_hash "
                 f"{self.samples['hot'][0]['logits_hash']}", "",
                 "| step | tok/s (least, most) | gain | paper's | MiB read a token | reads a token | hits "
                 "| time waiting for the disk |", "|---|---|---|---|---|---|---|---|"]
        before = None
        for name, paper in STEPS:
            lines.append(self.row(name, self.rate(name) / before if before else None, paper))
            before = self.rate(name)
        for name, paper in BASELINES:
            lines.append(self.row(name, before / self.rate(name), paper, "hot over it: "))
        return "\n".join(lines)

    def rate(self, name):
        return self.middle(name, "decode_tokens_per_s")

    def middle(self, name, key):
        return median([s[key] for s in self.samples[name] if s[key] is not None])

    def row(self, name, gain, paper, prefix=""):
        rates = [s["decode_tokens_per_s"] for s in self.samples[name]]
        hits = self.middle(name, "cache_hit_rate")
        cells = [name, f"{self.rate(name):.2f} ({min(rates):.2f}, {max(rates):.2f})",
                 f"{prefix}{gain:.2f}" if gain else "-", f"{paper:.2f}" if paper else "-",
                 f"{self.middle(name, 'bytes_read_per_token') / MIB:.1f}",
                 f"{self.middle(name, 'reads_per_token'):.0f}", "-" if hits is None else f"{hits * 100:.1f} %",
                 f"{self.middle(name, 'io_stall_share') * 100:.0f} %"]
        return "| " + " | ".join(cells) + " |"

    def policies(self):
        trace = f"{self.store}.firings"
        try:
            self.samples = {"pipeline": [self.run("pipeline", self.options.tokens, ["--firings", trace])],
                            "lru": [self.run("lru", self.options.tokens)]}
            slots = self.samples["pipeline"][0]["cache_slots"]
            at_first = self.run("pipeline", 1)["cache_slots"]
            found = json.loads(run([self.options.policies_tool, "--trace", trace, "--slots", slots]))
        finally:
            if os.path.exists(trace) and not self.options.keep:
                os.remove(trace)
        replayed = found["cache_policies"][0]
        self.samples["replayed"] = replayed
        lines = [f"{self.title}: {replayed['lookups']} look-ups of {replayed['tokens']} tokens; of "
                 f"{replayed['units']} records the cache holds {slots} (the engine's at first {at_first})", "",
                 "| policy | hits on the trace | of the best static set's | hits in its second half "
                 "| of the best static set's | hits of the engine |", "|---|---|---|---|---|---|"]
        for name, step in POLICIES:
            rates = replayed[name]
            own = f"{self.samples[step][0]['cache_hit_rate'] * 100:.1f} % ({step})" if step else "-"
            late = rates["hit_late"] / replayed["static"]["hit_late"]
            cells = [name, f"{rates['hit'] * 100:.1f} %", f"{rates['of_static'] * 100:.1f} %",
                     f"{rates['hit_late'] * 100:.1f} %", f"{late * 100:.1f} %", own]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def synth(options):
    cut = ["--layers", str(options.layers)] if options.layers else []
    store = os.path.join(options.work, f"mistral-7b-relu{options.layers or ''}.stoke")
    if not os.path.exists(store):
        run([options.stoke, "synth", "mistral-7b-relu", "-o", store, "-q", *cut])
    title = f"ReLU 7B shape{f', {options.layers} layers' if options.layers else ''}, {options.memory}"
    return Ablation(options, title, store, parse_size(options.memory), ["--temp", "0", "-c", "1024"])


def real(options):
    name = os.path.splitext(os.path.basename(options.real))[0]
    store = os.path.join(options.work, f"{name}.stoke")
    if not os.path.exists(store):
        run([options.stoke, "convert", options.real, "-o", store, "-q"])
    return Ablation(options, f"{name}, 110M", store, 110 * MIB, ["--temp", "1", "-s", "7", "-c", "512"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoke", default=os.path.join(ROOT, "build/release/stoke"))
    parser.add_argument("--policies-tool", default=os.path.join(ROOT, "build/release/bench/bench_cache_policies"),
                        help="built by cmake --build build/release --target bench_cache_policies")
    parser.add_argument("--work", default="/tmp")
    parser.add_argument("--real", help="a GGUF file of a ReLU model")
    parser.add_argument("--rows", default="synth,real")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--memory", default="2500M")
    parser.add_argument("--policies", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    makers = [maker for name, maker in (("synth", synth), ("real", real))
              if name in options.rows.split(",") and (maker is not real or options.real)]
    samples = {}
    for maker in makers:
        work = maker(options)
        if options.policies:
            text = work.policies()
        else:
            work.measure()
            text = work.table()
        print(text + "\n", flush=True)
        samples[work.title] = work.samples
        if not options.keep:
            os.remove(work.store)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(samples, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.TimeoutExpired) as error:
        sys.exit(f"ablation: {error}")
