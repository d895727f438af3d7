#!/usr/bin/env python3
"""Perplexity of stoke beside llama.cpp on one model in several types: same text, same windows of 512 tokens.

The types are made from MODEL by llama-quantize (--pure), so both programs read the same file; a model whose rows are no
multiple of 256 has no K-quants and no IQ4_XS. Prints a markdown table; fails where the two differ by more than --most.

usage: bench/perplexity.py --llama DIR --model FILE.gguf --text FILE [--stoke PATH] [--types a,b] [--windows N]
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"perplexity: {command[0]} failed with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout + done.stderr, done.stdout


def of_stoke(args, model):
    command = [args.stoke, "ppl", model, "-f", args.text, "--windows", str(args.windows), "--json"]
    return json.loads(run(command)[1])["perplexity"]


def of_llama(args, model):
    command = [os.path.join(args.llama, "llama-perplexity"), "-m", model, "-f", args.text, "-c", "512", "--chunks",
               str(args.windows), "-t", str(os.cpu_count())]
    return float(re.search(r"Final estimate: PPL = ([0-9.]+)", run(command)[0]).group(1))


def requantized(args, kind, folder):
    path = os.path.join(folder, f"{kind}.gguf")
    run([os.path.join(args.llama, "llama-quantize"), "--allow-requantize", "--pure", args.model, path, kind])
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True, help="folder of llama.cpp's binaries")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--stoke", default=os.path.join(ROOT, "build/release/stoke"))
    parser.add_argument("--types", default="q8_0,q4_0,q5_0,q5_1,iq4_nl,f16")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--most", type=float, default=0.3, help="difference allowed, in percent")
    args = parser.parse_args()
    print("| type | stoke | llama.cpp | difference |\n|---|---|---|---|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ["as it is", *args.types.split(",")]:
            model = args.model if kind == "as it is" else requantized(args, kind, folder)
            ours, theirs = of_stoke(args, model), of_llama(args, model)
            percent = 100 * (ours / theirs - 1)
            worst = max(worst, abs(percent))
            print(f"| {kind} | {ours:.4f} | {theirs:.4f} | {percent:+.2f} % |", flush=True)
            if model != args.model:
                os.unlink(model)
    sys.exit(0 if worst <= args.most else f"perplexity: {worst:.2f} % apart, more than {args.most} %")


if __name__ == "__main__":
    main()
