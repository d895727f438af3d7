"""Writes the first inputs of the fuzz targets: small valid files of every kind. Usage: make_seeds.py CORPUS_FOLDER"""
import json
import os
import struct
import sys


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(version, pairs, tensors, data):
    """pairs: (key, packed type and value); tensors: (name, dims, type, offset)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(text(key) + value for key, value in pairs)
    for name, dims, kind, offset in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


SCALARS = [("u8", 0, "<B", 1), ("i8", 1, "<b", -1), ("u16", 2, "<H", 1), ("i16", 3, "<h", -1), ("u32", 4, "<I", 1),
           ("i32", 5, "<i", -1), ("f32", 6, "<f", 0.5), ("bool", 7, "<?", True), ("u64", 10, "<Q", 1),
           ("i64", 11, "<q", -1), ("f64", 12, "<d", 0.5)]


def gguf_seeds():
    pairs = [(key, struct.pack("<I", kind) + struct.pack(form, value)) for key, kind, form, value in SCALARS]
    arrays = [(key, struct.pack("<IIQ", 9, kind, 2) + 2 * struct.pack(form, value))
              for key, kind, form, value in SCALARS]
    arrays.append(("texts", struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")))
    name = [("general.architecture", struct.pack("<I", 8) + text("llama"))]
    align = [("general.alignment", struct.pack("<II", 4, 64))]
    split = [("split.no", struct.pack("<IH", 2, 0)), ("split.count", struct.pack("<IH", 2, 2)),
             ("split.tensors.count", struct.pack("<Ii", 5, 2))]
    yield "scalars", gguf(3, name + pairs, [], 0)
    yield "arrays", gguf(3, name + arrays, [], 0)
    yield "v2", gguf(2, name, [("a", [4], 0, 0)], 32)
    yield "tensors", gguf(3, name, [("a", [4, 2], 0, 0), ("b", [32, 2], 2, 32), ("c", [256, 1, 2], 12, 96)], 384)
    yield "aligned", gguf(3, align, [("a", [4], 0, 0), ("b", [32], 8, 64)], 128)
    yield "split", gguf(3, split, [("a", [4], 0, 0)], 32)
    yield "empty", gguf(3, [], [], 0)
    yield "store", store_seed()


def store_seed():
    """A neuron store of one layer: two bundles of 128 bytes, and checksums that are wrong."""
    def number(value):
        return struct.pack("<II", 4, value)

    def numbers(value):
        return struct.pack("<IIQi", 9, 5, 1, value)

    pairs = [("general.alignment", number(4096)), ("stoke.version", number(1)),
             ("stoke.layout", struct.pack("<I", 8) + text("bundle")),
             ("stoke.down", struct.pack("<I", 8) + text("requantized")), ("stoke.cluster_neurons", number(256)),
             ("stoke.dim", number(32)), ("stoke.source", struct.pack("<I", 8) + text("gguf")),
             ("stoke.gate_types", numbers(8)), ("stoke.up_types", numbers(8)), ("stoke.down_types", numbers(8)),
             ("stoke.record_bytes", numbers(128))]
    tensors = [("blk.0.ffn_down_factors", [32], 0, 0), ("blk.0.ffn_records", [128, 2], 24, 4096),
               ("stoke.record_checksums", [2], 26, 8192),
               ("stoke.matrix_checksums", [1], 26, 12288), ("stoke.seal", [4], 26, 16384)]
    head = gguf(3, pairs, tensors, 0)
    return head + b"\0" * (4096 - len(head) + 16384 + 16)


def safetensors(tensors, data):
    head = json.dumps(tensors).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * data


def safetensors_seeds():
    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    one = safetensors({"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 2], 0, 16),
                       "b": entry("BF16", [3], 16, 22), "c": entry("F16", [], 22, 24), "d": entry("U8", [4], 24, 28)},
                      28)
    index = json.dumps({"metadata": {}, "weight_map": {"a": "1.safetensors"}}).encode()
    config = json.dumps({"model_type": "llama", "list": [1, 2.5, None, {"deep": [[]]}]}).encode()
    yield "single", b"\xff".join([config, b"", one])
    yield "sharded", b"\xff".join([b"{}", index, one])
    yield "none", b"\xff".join([b"{}", b"", safetensors({}, 0)])


def firing_stats_seeds():
    def stats(**changes):
        return json.dumps({"format": "stoke-firing-2", "model": "m", "fingerprint": "0123456789abcdef", "tokens": 8,
                           "layers": [{"tokens": [8], "fired": [0, 8, 2, 4]},
                                      {"tokens": [3, 5], "fired": [1, 3, 5, 0]}], **changes}).encode()

    yield "whole", stats()
    yield "other_format", stats(format="stoke-firing-1")
    yield "more_than_tokens", stats(tokens=4)
    yield "unequal", stats(layers=[{"tokens": [4, 4], "fired": [1, 2, 3]}])
    yield "not_numbers", stats(layers=[{"tokens": [-1, 2.5, 1e300], "fired": [None]}])


def firing_trace_seeds():
    lines = "0 1 3\n1 0 2 5\n\n0 1 3 4\n1\n\n0 0\n1 5\n"
    yield "head", b"\x40# firings: 2 layers of 6 neurons\n" + lines.encode()
    yield "no_head", b"\x80" + lines.encode()
    yield "descending", b"\x01# firings: 1 layers of 4 neurons\n0 3 1\n"
    yield "many", b"\x20# firings: 3 layers of 9 neurons\n" + b"0 1 2 8\n1 0 4\n2 3 5 7\n\n" * 8


def store_seeds():
    """Which store, whether it stays unsealed, and patches: of the header's counts, of both ends, of anywhere."""
    for store in range(6):
        yield f"whole_{store}", bytes([store, 0])
        yield f"damaged_{store}", bytes([store, 1, 0x80, 0, 0xc0, 0x55])
        yield f"patched_{store}", bytes([store, 0, 0, 8, 0, 1, 1, 16, 0, 2, 0, 0x83, 0, 0xf0]) + b"\xff" * 4


def main():
    for target, seeds in (("fuzz_gguf", gguf_seeds()), ("fuzz_safetensors", safetensors_seeds()),
                          ("fuzz_firing_stats", firing_stats_seeds()), ("fuzz_firing_trace", firing_trace_seeds()),
                          ("fuzz_store", store_seeds())):
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        for name, data in seeds:
            with open(os.path.join(folder, "seed_" + name), "wb") as out:
                out.write(data)


main()
