#!/usr/bin/env python3
"""Makes the golden files of the text tests: tests/data/text/*.json.

Needs `tokenizers` and `sentencepiece`; the tests themselves need none of them. Tiny
vocabularies are trained on the nasty texts below, deliberately without word boundaries, so that every difference in
pre-tokenizing shows in the ids.
"""
import base64
import io
import json
import os

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as sp_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "text")

TEXTS = [
    "", " ", "  ", "\t", "\n", "\n\n", "\r\n", " \n ", "a", " a", "a ", "  a  b  ", "Hello, world!",
    "The quick brown fox jumps over the lazy dog.", "don't I'LL we've THEY'RE it's 'S 'sup o'clock 'd 'M",
    "DON'T can\u2019t",
    "1", "12", "123", "1234", "12345678901", "3.14159 1,000,000 0x1F 1e-9",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969 \u00bd \u2167 \u00b2",
    "a1b2c3", "CamelCaseWords and snake_case_words HTTPServer iPhone", "foo(bar)[baz]{qux}<tag/>",
    "if (x == 0) {\n    return -1;\n}\n", "def f(x):\n\treturn x\n\n\n\tpass\n", "/usr/bin//env ./a ../b \\n",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3068\u3072\u3089\u304c\u306a",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
    "\U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "e\u0301 \u00e9 a\u0308\u0323 \u1ea1\u0308 Z\u0351\u036b\u0343 \u212b \ufb01 \uff21\uff22",
    "\u0301\u0301 \u0308", "\u017fs '\u017f \u212a \u0130i \u00df\u1e9e",
    "x\u00a0y\u2003z\u3000w\u200bv\ufeffu\u2028t\u0085s\x0br\x0cq", " " * 7 + "x" + " " * 33 + "y" + "\t" * 5 + "z",
    "\n" * 9 + "x\n \n  \n",
    " \t \t mixed \t\t blanks", "trailing   ", "trailing\n\n", "\u2581 literal \u2581\u2581 marks",
    "a\x00b\x00\x00c", "\x01\x02\x1b[31mred\x7f",
    "<|im_start|>user\nhi<|im_end|>\n", "x<|im_end|>y <|im_end|> <|im_end|", "<s>[INST] hi [/INST]</s>",
    "<0x41><0xE2>", "<unk>",
    "<tool_call>{\"a\": 1}</tool_call>", "!!!???...---___***###$$$%%%^^^&&&@@@~~~```+++===|||",
    "\u00ab\u00bb\u201e\u201c\u2026\u2014\u2013\u00a1\u00bf\u20ac\u00a3\u2211\u221a\u2192",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababab babababa",
    "na\u00efve caf\u00e9 r\u00e9sum\u00e9 \u00dcber \u0141\u00f3d\u017a \u010ce\u0161tina",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! "
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "https://example.com/a?b=c&d=%20#e user@example.org",
    "\U0001d54f\U0001d555 \U00010348 \U000e0041 \ue000 \uffff \U0010ffff",
    "3 apples, 4.5 pears & 10% off; 'quoted' \"double\"",
]
BROKEN = [b"\xff", b"ab\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98 y", b"\xc0\xaf\xed\xa0\x80", b"ok \x80\x80 ok \xf5"]
LONG = [("a", 100000), (" ", 100000), ("\u4f60", 33000), ("\U0001f600", 5000), ("7", 20000), ("ab ", 20000)]
CORPUS = [t for t in TEXTS if t] * 3 + [
    "the and ing er on in at to of is it he she they we you that this with for was are be have not but",
    "return if else for while int float const char void static struct class public private import from def",
    "one two three four five six seven eight nine ten 2024 1999 100 200 1000 2000",
] * 4


def all_bytes():
    return [t.encode() for t in TEXTS] + BROKEN + [(t * n).encode() for t, n in LONG]


def fingerprint(ids):
    """Short lists as they are; long ones as [count, 64-bit FNV-1a over the ids as little-endian 32-bit words]."""
    if len(ids) <= 400:
        return ids
    h = 0xCBF29CE484222325
    for b in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return {"count": len(ids), "fnv": f"{h:016x}"}


def write(name, value):
    path = os.path.join(OUT, name)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")
    print(f"{name}: {os.path.getsize(path)} bytes")


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>"]
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HEAD = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = f"{HEAD}{UPPER}*{LOWER}+|{HEAD}{UPPER}+{LOWER}*" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL
GPT4O = (f"{HEAD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{HEAD}{UPPER}+{LOWER}*{CONTRACTIONS}?"
         + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL)
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*" + TAIL)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


# GGUF name -> (pre-tokenizer as the family's tokenizer.json has it, NFC, ignore_merges)
FAMILIES = {
    "gpt-2": (byte_level(True), False, False),
    "olmo": (byte_level(True), True, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(True)]), False, False),
    "command-r": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(True)]), True, False),
    "llama-bpe": (pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]), False, True),
    "dbrx": (pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]), False, False),
    "qwen2": (pre_tokenizers.Sequence([split(QWEN2), byte_level(False)]), True, False),
    "tekken": (pre_tokenizers.Sequence([split(TEKKEN), byte_level(False)]), False, True),
    "gpt-4o": (pre_tokenizers.Sequence([split(GPT4O), byte_level(False)]), False, False),
    "deepseek-v3": (pre_tokenizers.Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                                             split(DEEPSEEK3), byte_level(False)]), False, False),
}


def make_byte_level():
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = byte_level(False)
    base.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    base.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False,
                                                         special_tokens=SPECIAL, max_token_length=12))
    base.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    families = []
    for name, (pre, nfc, ignore) in FAMILIES.items():
        spec = json.loads(base.to_str())
        spec["model"]["ignore_merges"] = ignore
        t = Tokenizer.from_str(json.dumps(spec))
        t.pre_tokenizer = pre
        if nfc:
            t.normalizer = normalizers.NFC()
        made = json.loads(t.to_str())
        texts = [b.decode("utf-8", errors="replace") for b in all_bytes()]
        special = [fingerprint(t.encode(x, add_special_tokens=False).ids) for x in texts]
        t.encode_special_tokens = True
        plain = [fingerprint(t.encode(x, add_special_tokens=False).ids) for x in texts]
        families.append({"pre": name, "pre_tokenizer": made["pre_tokenizer"], "normalizer": made["normalizer"],
                         "ignore_merges": ignore, "plain": plain,
                         "special": {i: s for i, s in enumerate(special) if s != plain[i]}})
    spec = json.loads(base.to_str())
    spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    write("byte_level.json", {"base": spec, "families": families})


def train_sp(**options):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter([l for t in CORPUS for l in t.split("\n") if l]),
                                   model_writer=model, minloglevel=2, hard_vocab_limit=False,
                                   character_coverage=0.98, **options)
    return model.getvalue()


def sp_case(name, proto_bytes, gguf_model):
    sp = spm.SentencePieceProcessor(model_proto=proto_bytes)
    proto = sp_model.ModelProto()
    proto.ParseFromString(proto_bytes)
    user = sp_model.ModelProto.SentencePiece.USER_DEFINED
    tokens = [p.piece.replace("\u2581", " ") if p.type == user else p.piece for p in proto.pieces]
    texts = [b.decode("utf-8", errors="replace") for b in all_bytes()]
    ids = [sp.encode(t) for t in texts]
    return {"name": name, "model": gguf_model, "tokens": tokens, "scores": [p.score for p in proto.pieces],
            "types": [p.type for p in proto.pieces], "unk": sp.unk_id(), "bos": sp.bos_id(), "eos": sp.eos_id(),
            "add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
            "remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
            "charsmap": base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode(),
            "plain": [fingerprint(i) for i in ids], "decoded": [sp.decode(i) for i in ids[:len(TEXTS) + len(BROKEN)]]}


def make_sentencepiece():
    bpe = dict(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity",
               remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
    rules = os.path.join(OUT, "rules.tsv")
    with open(rules, "w") as f:
        for source, target in [("FB01", "66 69"), ("A0", "20"), ("9", "20"), ("3000", "20"), ("FF21", "41"),
                               ("212B", "C5")]:
            f.write(f"{source}\t{target}\n")
    unigram = dict(model_type="unigram", vocab_size=500, normalization_rule_tsv=rules)
    cases = [
        sp_case("llama", train_sp(**bpe), "llama"),
        sp_case("gemma", train_sp(**bpe, add_dummy_prefix=False, split_by_whitespace=False,
                                  user_defined_symbols=["\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581",
                                                        "<tag>"]), "llama"),
        sp_case("no byte fallback", train_sp(**{**bpe, "byte_fallback": False}), "llama"),
        sp_case("unigram", train_sp(**unigram), "t5"),
        sp_case("unigram with bytes", train_sp(**unigram, byte_fallback=True, remove_extra_whitespaces=False), "t5"),
    ]
    os.remove(rules)
    write("sentencepiece.json", {"cases": cases})


def make_texts():
    raw = [base64.b64encode(b).decode() for b in [t.encode() for t in TEXTS] + BROKEN]
    write("texts.json", {"texts": raw, "long": [[base64.b64encode(t.encode()).decode(), n] for t, n in LONG]})


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    make_texts()
    make_byte_level()
    make_sentencepiece()
