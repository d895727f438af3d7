#!/usr/bin/env python3
"""Models bigger than their memory, beside llama.cpp under the same limit: alternated, cold page cache, medians.

Each run lies in a memory cgroup (version 1 or 2; needs root) of its budget and 48 MiB, page cache included. llama.cpp
maps the file and does not repack (with repacking it is killed). Models are made by `stoke synth` in --work, and kept
with --keep. A store has no counterpart there: llama.cpp gets the GGUF file of the same shape and bytes.

The disk is measured first (`stoke profile --refresh`). "Reads" in the last column is the share of a token's time that
its reads take at that disk's rates: large ones (about 1 MiB) at the best rate of direct reads, small ones at the rate
of random reads at depth 32. Near or above 100 % the disk is the limit.

usage: bench/streaming.py --llama DIR [--stoke PATH] [--work DIR] [--rows dense,store,moe,curve,drelu] [--pairs N]
       [--layers N] [--keep]
Prints one markdown table; --json FILE writes every sample too.
"""
import argparse
import json
import os
import subprocess
import sys

from harness import Failed, chill, limited, median

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
PROMPT = "The quick brown fox jumps over the lazy dog and"
MARGIN = 48 << 20
MIB = 1 << 20


class Bench:
    """The two programs and where the models lie."""

    def __init__(self, options):
        self.options = options
        self.rows = []
        command = [options.stoke, "profile", "--refresh", "--json", "-q", "--dir", options.work]
        self.disk = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["disk"]

    def synth(self, shape, kind, extra=()):
        path = os.path.join(self.options.work, f"{shape}{'-'.join(extra)}.{kind}")
        if not os.path.exists(path):
            subprocess.run([self.options.stoke, "synth", shape, "-o", path, "-q", *extra], check=True)
        return path

    def done_with(self, path):
        if not self.options.keep:
            os.remove(path)

    def stoke(self, model, budget, tokens, flags):
        chill(model)
        memory = ["--memory", str(budget)] if budget else []
        command = [self.options.stoke, "run", model, "-p", PROMPT, "-n", tokens, "--temp", "0", "--ignore-eos", "-q",
                   "--json", *memory, *flags]
        out, peak = limited(command, budget + MARGIN if budget else 0)
        report = json.loads(out)
        return {**report["stats"], "logits_hash": report["logits_hash"], "charged_peak": peak}

    def stoke_prefill(self, model, budget, prompt, flags):
        chill(model)
        memory = ["--memory", str(budget)] if budget else []
        command = [self.options.stoke, "bench", model, "--prompt", prompt, "--generate", "0", "--repeat", "1", "-q",
                   "--json", *memory, *flags]
        out, _ = limited(command, budget + MARGIN if budget else 0)
        return json.loads(out)["prefill_tokens_per_s"]

    def peer(self, model, budget, prompt, tokens):
        """Tokens a second of llama-bench; None where it does not get there."""
        chill(model)
        loads = ["--repack", "0", "-lm", "mmap"] if budget else []
        command = [os.path.join(self.options.llama, "llama-bench"), "-m", model, "-r", "1", "-o", "json", "--no-warmup",
                   "-p", prompt, "-n", tokens, "-t", "2", *loads]
        try:
            out, _ = limited(command, budget + MARGIN if budget else 0)
            return json.loads(out)[0]["avg_ts"]
        except Failed as error:
            print(f"streaming: llama.cpp: {error}", file=sys.stderr)
            return None

    def add(self, work, mine, peer, asked, note=""):
        ratio = mine / peer if mine and peer else None
        self.rows.append({"work": work, "stoke": mine, "peer": peer, "ratio": ratio, "asked": asked, "note": note})
        print(f"streaming: {work}: stoke {show(mine)}, llama.cpp {show(peer)}, ratio {show(ratio)}; {note}",
              file=sys.stderr)

    def decode(self, work, model, peer_model, budget, flags, asked, tokens=(64, 8)):
        mine, theirs = [], []
        for _ in range(self.options.pairs):
            mine.append(self.stoke(model, budget, tokens[0], flags))
            if peer_model:
                theirs.append(self.peer(peer_model, budget, 0, tokens[1]))
        middle = sorted(mine, key=lambda s: s["decode_tokens_per_s"])[len(mine) // 2]
        self.add(work, median([s["decode_tokens_per_s"] for s in mine]), median([t for t in theirs if t]), asked,
                 f"{describe(middle)}, reads {self.read_share(middle) * 100:.0f} %")
        return middle

    def read_share(self, stats):
        """Of a token's time, at the disk's rates."""
        rate = {r["request_bytes"]: r["bytes_per_s"] for r in self.disk["random"] if r["depth"] == 32}
        large = max([self.disk["sequential_direct_bytes_per_s"], *rate.values()])
        size = 5120  # a record with what alignment and neighbours add
        reads, moved = stats["reads_per_token"], stats["bytes_read_per_token"]
        small = min(reads, max(0, (reads * MIB - moved) / (MIB - size)))
        return ((moved - small * size) / large + small * size / (rate[4096] * size / 4096)) / stats["token_s_mean"]

    def dense(self):
        model = self.synth("llama-7b", "gguf")
        budget = 2048 * MIB
        flags = ["-c", "512"]
        self.decode("dense 7B Q4_0, 2 GiB, decode", model, model, budget, flags, "1.35")
        mine = median([self.stoke_prefill(model, budget, 448, flags) for _ in range(self.options.pairs)])
        whole = median([self.stoke_prefill(model, 0, 448, flags) for _ in range(self.options.pairs)])
        self.add("same, prefill 448, over ourselves in memory", mine, whole, "0.9")
        self.done_with(model)

    def store(self):
        flags = ["-c", "1024"]
        for skew in ("published", "measured", "uniform"):
            extra = [] if skew == "published" else ["--skew", skew]
            store = self.synth("mistral-7b-relu", "stoke", extra)
            if skew != "published":
                self.decode(f"ReLU 7B store, {skew}, 2500 MiB, decode", store, None, 2500 * MIB, flags, "", (128, 0))
                self.done_with(store)
                continue
            peer = self.synth("mistral-7b-relu", "gguf")
            self.decode("ReLU 7B store, 2500 MiB, decode", store, peer, 2500 * MIB, flags, "10", (512, 8))
            self.decode("same, all in memory", store, peer, 0, flags, "1.7", (128, 32))
            mine = median([self.stoke_prefill(store, 0, 512, flags) for _ in range(self.options.pairs)])
            self.add("same, prefill 512, over llama.cpp in memory", mine, self.peer(peer, 0, 512, 0), "1.1")
            mine = median([self.stoke_prefill(store, 2500 * MIB, 512, flags) for _ in range(self.options.pairs)])
            self.add("same, prefill 512, 2500 MiB", mine, None, "")
            self.done_with(store)
            self.done_with(peer)

    def routed(self):
        """A model with experts, some of them popular, half of them those of the token before."""
        return self.synth("qwen3-30b-a3b", "gguf", ["--router-skew", "0.8", "--router-locality", "0.5"])

    def moe(self):
        model = self.routed()
        size = os.path.getsize(model)
        for percent, asked in ((25, "2"), (50, "2"), (75, "1.5")):
            budget = size * percent // 100
            self.decode(f"Qwen3-30B-A3B shape, {percent} % of {size >> 30} GiB, decode", model, model, budget,
                        ["-c", "1024"], asked)
            self.compare_with_belady(model, budget)
        self.done_with(model)

    def experts(self):
        """Hit rates alone: whatever else the machine does, they are the same but for guesses."""
        model = self.routed()
        for percent in (25, 50, 75):
            self.compare_with_belady(model, os.path.getsize(model) * percent // 100)
        self.done_with(model)

    def compare_with_belady(self, model, budget):
        """What the cache keeps from the disk, beside the policies and the bound on the same choices of experts."""
        trace = f"{model}.firings"
        stats = self.stoke(model, budget, 64, ["-c", "1024", "--firings", trace])
        command = [self.options.policies, "--trace", trace, "--slots", str(stats["cache_slots"])]
        replayed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["cache_policies"][0]
        os.remove(trace)
        names = ("lru", "s3_fifo", "lfu", "lfu_recent", "static", "belady")
        told = [f"{name} {replayed[name]['hit'] * 100:.1f}" for name in names]
        print(f"streaming: {stats['cache_slots']} of {replayed['units']} experts fit; hits of the engine "
              f"{stats['cache_hit_rate'] * 100:.1f} % (guesses that came true among them), "
              f"{stats['bytes_read_per_token'] / MIB:.0f} MiB read a token; same choices, from an empty cache, %: "
              f"{', '.join(told)}", file=sys.stderr)

    def curve(self):
        model = self.routed()
        size = os.path.getsize(model)
        for percent in (12, 20, 30, 40, 50, 60, 75, 90):
            stats = self.stoke(model, size * percent // 100, 48, ["-c", "1024"])
            work = f"Qwen3-30B-A3B shape, {percent} %, decode"
            self.add(work, stats["decode_tokens_per_s"], None, "", describe(stats))
        self.done_with(model)

    def drelu(self):
        cut = ["--layers", self.options.layers] if self.options.layers else []
        store = self.synth("mixtral-47b-drelu", "stoke", cut)
        budget = os.path.getsize(store) * 30 // 100
        name = f"ReLU MoE, Mixtral-47B shape{' cut to ' + self.options.layers + ' layers' if cut else ''}"
        work = f"{name}, 30 % of {os.path.getsize(store) / 2**30:.1f} GiB, decode"
        mine = [self.stoke(store, budget, 64, ["-c", "1024"]) for _ in range(self.options.pairs)]
        self.done_with(store)  # the disk may not hold both
        peer = self.synth("mixtral-47b-drelu", "gguf", cut)
        theirs = [self.peer(peer, budget, 0, 8) for _ in range(self.options.pairs)]
        middle = sorted(mine, key=lambda s: s["decode_tokens_per_s"])[len(mine) // 2]
        self.add(work, median([s["decode_tokens_per_s"] for s in mine]), median([t for t in theirs if t]), "2",
                 f"{describe(middle)}, reads {self.read_share(middle) * 100:.0f} %")
        self.done_with(peer)


def describe(stats):
    hits = stats["cache_hit_rate"]
    told = [f"{stats['bytes_read_per_token'] / MIB:.0f} MiB a token"]
    if hits is not None:
        told.append(f"hits {hits * 100:.1f} %")
    told += [f"stall {stats['io_stall_share'] * 100:.0f} %",
             f"P99/mean {stats['token_s_p99'] / stats['token_s_mean']:.2f}",
             f"peak {stats['peak_rss_bytes'] / MIB:.0f} MiB", f"charged {stats['charged_peak'] / MIB:.0f} MiB"]
    return ", ".join(told)


def show(number):
    return "-" if number is None else f"{number:.3g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--stoke", default=os.path.join(ROOT, "build/release/stoke"))
    parser.add_argument("--policies", default=os.path.join(ROOT, "build/release/bench/bench_cache_policies"))
    parser.add_argument("--work", default="/tmp")
    parser.add_argument("--rows", default="dense,store,moe")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--layers", help="cut the shape of drelu")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--json")
    bench = Bench(parser.parse_args())
    for row in bench.options.rows.split(","):
        getattr(bench, row)()
    print("| work | stoke tok/s | llama.cpp tok/s | ratio | asked | |\n|---|---|---|---|---|---|")
    for r in bench.rows:
        cells = (r["work"], show(r["stoke"]), show(r["peer"]), show(r["ratio"]), r["asked"], r["note"])
        print("| " + " | ".join(cells) + " |")
    if bench.options.json:
        with open(bench.options.json, "w", encoding="utf-8") as file:
            json.dump(bench.rows, file, indent=1)


if __name__ == "__main__":
    main()
