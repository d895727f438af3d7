#!/usr/bin/env python3
"""Logits of stoke and of llama.cpp in every element type, on small random models (`stoke synth`).

Three readings of each file: stoke, llama.cpp, and llama.cpp on the same weights dequantised to F32 by llama-quantize,
which is the product without rounded activations. Columns are the mean KL divergence of a reading from another, in nats,
and how often both like the same token best. Random models have flat logits, so that best tokens lie close together:
KL is the sharper measure. Fails where stoke is further from the F32 reading than llama.cpp (by a quarter, for chance).

Then the mixtures (Q4_K_M and the like): llama-quantize and `stoke synth` must choose the same type for every tensor, in
a model whose rows are multiples of 256 and in one where they are not, which has fallbacks.

usage: bench/logits.py --llama DIR --text FILE [--stoke PATH] [--logits PATH] [--types a,b] [--mixtures a,b]
"""
import argparse
import json
import os
import sys
import tempfile

from harness import Failed, GgufSizes, run

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
TYPES = "f32,f16,bf16,q4_0,q4_1,q5_0,q5_1,q8_0,q2_k,q3_k,q4_k,q5_k,q6_k,iq4_nl,iq4_xs,mxfp4,q4_k_m"
MIXTURES = "q3_k_s,q3_k_m,q3_k_l,q4_k_s,q4_k_m,q5_k_s,q5_k_m"
SIZES = {"dim": 512, "ffn": 1536, "heads": 8, "kv-heads": 4, "layers": 4, "vocab": 4096}
MIXTURE_SIZES = {"rows of 256": {"dim": 256, "ffn": 512, "heads": 8, "kv-heads": 2, "layers": 16, "vocab": 512},
                 "rows of 288": {"dim": 288, "ffn": 512, "heads": 9, "kv-heads": 3, "layers": 16, "vocab": 512}}
WINDOW, WINDOWS = 256, 4
CHANCE, LEAST = 1.25, 1e-6


def synth(args, kind, path, sizes):
    flags = [text for name, size in sizes.items() for text in (f"--{name}", size)]
    run([args.stoke, "synth", "--arch", "llama", "--type", kind, "-o", path, "-q", *flags])


def quantize(args, source, path, kind):
    run([os.path.join(args.llama, "llama-quantize"), "--allow-requantize", source, path, kind])


def llama_logits(args, model, path):
    # Without repacking: those kernels have the same mathematics, and those for AMX end with a fault on some machines.
    run([os.path.join(args.llama, "llama-perplexity"), "-m", model, "-f", args.text, "-c", WINDOW, "--chunks", WINDOWS,
         "-t", os.cpu_count(), "--no-repack", "--save-all-logits", path])


def distance(args, base, other):
    return json.loads(run([args.logits, base, other]))


def compare_type(args, kind, folder):
    """One row. True where stoke is near enough."""
    model, exact_model = os.path.join(folder, "model.gguf"), os.path.join(folder, "exact.gguf")
    exact, theirs = os.path.join(folder, "exact.logits"), os.path.join(folder, "llama.logits")
    synth(args, kind, model, SIZES)
    quantize(args, model, exact_model, "F32")
    llama_logits(args, exact_model, exact)
    llama_logits(args, model, theirs)
    pairs = [distance(args, exact, model), distance(args, exact, theirs), distance(args, theirs, model)]
    kl = " | ".join(f"{pair['kl_mean']:.1e}" for pair in pairs)
    top = " | ".join(f"{100 * pair['same_top']:.1f} %" for pair in pairs)
    print(f"| {kind.upper()} | {kl} | {top} |", flush=True)
    return pairs[0]["kl_mean"] <= max(CHANCE * pairs[1]["kl_mean"], LEAST)


def compare_mixture(args, kind, name, sizes, folder):
    """One row. True where both choose the same types."""
    plain, ours, theirs = (os.path.join(folder, f"{who}.gguf") for who in ("plain", "ours", "theirs"))
    synth(args, "f32", plain, sizes)
    synth(args, kind, ours, sizes)
    quantize(args, plain, theirs, kind.upper())
    ours, theirs = GgufSizes(ours).types, GgufSizes(theirs).types
    differ = sorted(tensor for tensor in ours.keys() | theirs.keys() if ours.get(tensor) != theirs.get(tensor))
    examples = f" ({', '.join(differ[:3])} ...)" if differ else ""
    print(f"| {kind.upper()} | {name} | {len(ours)} | {len(differ)}{examples} |", flush=True)
    return not differ


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True, help="folder of llama.cpp's binaries")
    parser.add_argument("--text", default=os.path.join(ROOT, "LICENSE"), help=f"{WINDOW * WINDOWS} tokens or more")
    parser.add_argument("--stoke", default=os.path.join(ROOT, "build/release/stoke"))
    parser.add_argument("--logits", default=os.path.join(ROOT, "build/release/bench/bench_logits"))
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--mixtures", default=MIXTURES)
    return parser.parse_args()


def main():
    args = parse()
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        print("| type | KL F32 to stoke | F32 to llama.cpp | llama.cpp to stoke | same best: F32, stoke | "
              "F32, llama.cpp | llama.cpp, stoke |\n|---|---|---|---|---|---|---|")
        bad += [kind for kind in filter(None, args.types.split(",")) if not compare_type(args, kind, folder)]
        print("\n| mixture | model | tensors | of another type in llama.cpp |\n|---|---|---|---|")
        for kind in filter(None, args.mixtures.split(",")):
            bad += [f"{kind}, {name}" for name, sizes in MIXTURE_SIZES.items()
                    if not compare_mixture(args, kind, name, sizes, folder)]
    sys.exit(f"logits: too far from llama.cpp: {'; '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        raise SystemExit(f"logits: {failure}") from failure
