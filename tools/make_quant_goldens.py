#!/usr/bin/env python3
"""Golden files of the element types: tests/data/quant.

<type>.bytes   blocks of random bits, with scales from ordinary to extreme (zero, negative, subnormal)
<type>.f32     what the `gguf` package makes of them
input.f32      4096 numbers, half normal, half Laplace
reference_rms.json  error of ggml's own quantiser on input.f32, by type

Needs numpy, gguf and, for the last, a build of ggml: make_quant_goldens.py --ggml PATH/libggml-base.so
"""
import argparse
import ctypes
import json
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType, quants

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "quant"
TYPES = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
# Where a block holds FP16 numbers.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
EXTREME = [0.0, -0.0, -0.013, 6e-8, 3.1e-5, -6.1e-5, 1000.0]


def random_blocks(name, elems, rng):
    block, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = elems // block
    if name == "F16":
        bits = rng.integers(0, 0x7C00, count, dtype=np.uint16) | (rng.integers(0, 2, count, dtype=np.uint16) << 15)
        return bits.view(np.uint8)
    if name == "BF16":
        bits = rng.integers(0, 0x7F80, count, dtype=np.uint16) | (rng.integers(0, 2, count, dtype=np.uint16) << 15)
        return bits.view(np.uint8)
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for i in range(count):
        for at in HALVES.get(name, []):
            scale = EXTREME[i // 2 % len(EXTREME)] if i % 2 else rng.uniform(0.001, 0.02)
            data[i, at:at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        if name == "MXFP4":
            data[i, 0] = [0, 1, 2, 3, 127, 250][i // 2 % 6] if i % 2 else rng.integers(115, 130)
    return data.reshape(-1)


def dequantize(name, data):
    return quants.dequantize(data.reshape(1, -1), GGMLQuantizationType[name]).reshape(-1).astype(np.float32)


def reference_rms(library, x):
    ggml = ctypes.CDLL(library)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [
        ctypes.c_void_p]
    result = {}
    for name in TYPES:
        block, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        data = np.zeros(x.size // block * size, np.uint8)
        ggml.ggml_quantize_chunk(int(GGMLQuantizationType[name]), x.ctypes.data, data.ctypes.data, 0, 1, x.size, None)
        error = dequantize(name, data).astype(np.float64) - x
        result[name.lower()] = float(f"{np.sqrt(np.mean(error**2)):.6g}")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", help="libggml-base.so; without it reference_rms.json is left as it is")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    for name in TYPES:
        data = random_blocks(name, 2048, rng)
        values = dequantize(name, data)
        assert np.isfinite(values).all(), name
        (OUT / f"{name.lower()}.bytes").write_bytes(data.tobytes())
        (OUT / f"{name.lower()}.f32").write_bytes(values.tobytes())
    x = np.concatenate([rng.standard_normal(2048), rng.laplace(size=2048)]).astype(np.float32) * np.float32(0.02)
    (OUT / "input.f32").write_bytes(x.tobytes())
    if args.ggml:
        (OUT / "reference_rms.json").write_text(json.dumps(reference_rms(args.ggml, x), indent=1) + "\n")


if __name__ == "__main__":
    main()
