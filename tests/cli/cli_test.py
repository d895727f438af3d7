#!/usr/bin/env python3
"""The command line as scripts see it: exit statuses, one line per failure, JSON keys. usage: cli_test.py STOKE"""
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../contract"))
from gguf_file import Gguf  # noqa: E402

STOKE = os.path.abspath(sys.argv[1])
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
SHAPE = ["--arch", "llama", "--layers", "2", "--dim", "64", "--ffn", "96", "--heads", "4", "--kv-heads", "2", "--vocab",
         "512", "-c", "512", "--type", "q8_0"]
STATS = ["model", "threads", "isa", "load_s", "time_to_first_token_s", "prefill_tokens_per_s", "decode_tokens_per_s",
         "token_s_p50", "token_s_p90", "token_s_p99", "token_s_mean", "budget_bytes", "peak_rss_bytes",
         "page_cache_bytes", "bytes_read", "bytes_read_per_token", "reads", "cache_hit_rate", "io_stall_share",
         "active_neuron_share", "predictor_recall", "reads_per_token", "ablation", "cache_slots"]


def stoke(*arguments, stdin=""):
    return subprocess.run([STOKE, *arguments], input=stdin.encode(), capture_output=True, timeout=120)


def as_json(*arguments, stdin=""):
    done = stoke(*arguments, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Cli(unittest.TestCase):
    def fails(self, status, *arguments, says=()):
        done = stoke(*arguments)
        self.assertEqual(done.returncode, status, done)
        self.assertEqual(done.stdout, b"")
        lines = done.stderr.decode().splitlines()
        self.assertEqual(len(lines), 1, lines)
        for part in says:
            self.assertIn(part, lines[0])

    def keys(self, found, wanted):
        for key in wanted:
            self.assertIn(key, found)

    def test_run_json_has_the_keys_and_is_reproducible(self):
        first = as_json("run", MODEL, "-p", "hello", "-n", "8", "--temp", "0", "--ignore-eos", "-t", "1")
        self.keys(first, ["text", "tokens", "prompt_tokens", "generated_tokens", "stop_reason", "seed",
                          "logits_hash", "stats"])
        self.keys(first["stats"], STATS)
        self.assertEqual(first["generated_tokens"], 8)
        self.assertEqual(len(first["tokens"]), 8)
        self.assertEqual(first["stop_reason"], "length")
        again = as_json("run", MODEL, "-p", "hello", "-n", "8", "--temp", "0", "--ignore-eos", "-t", "2", "-b", "1")
        self.assertEqual(again["logits_hash"], first["logits_hash"])
        self.assertEqual(again["tokens"], first["tokens"])

    def test_same_seed_same_text(self):
        drawn = [as_json("run", MODEL, "-p", "a", "-n", "16", "-s", "5", "--temp", "1.5", "--ignore-eos")["tokens"]
                 for _ in range(2)]
        self.assertEqual(drawn[0], drawn[1])

    def test_run_prints_the_completion_only(self):
        expected = as_json("run", MODEL, "-p", "hello", "-n", "8", "--temp", "0", "--ignore-eos")["text"]
        done = stoke("run", MODEL, "-n", "8", "--temp", "0", "--ignore-eos", stdin="hello\n")
        self.assertEqual(done.stdout.decode("utf-8"), expected)
        self.assertEqual(done.stderr, b"")
        self.assertIn(b"(1 token, p50", stoke("run", MODEL, "-p", "a", "-n", "2", "--ignore-eos", "--stats").stderr)

    def test_bench_json_has_the_keys(self):
        found = as_json("bench", MODEL, "--prompt", "16", "--generate", "4", "--repeat", "2", "--parallel", "2")
        self.keys(found, ["prefill_tokens_per_s", "decode_tokens_per_s", "samples", "stats"])
        self.keys(found["stats"], STATS)
        self.assertEqual(len(found["samples"]), 2)
        self.assertGreater(found["decode_tokens_per_s"], 0)

    def test_ppl_json_has_the_keys(self):
        text = "The quick brown fox jumps over the lazy dog. " * 20
        found = as_json("ppl", MODEL, "-c", "64", "--windows", "3", stdin=text)
        self.keys(found, ["perplexity", "nll", "tokens_scored", "windows", "stats"])
        self.assertEqual(found["windows"], 3)
        self.assertEqual(found["tokens_scored"], 3 * 31)

    def test_tokenize_gives_ids_that_decode_to_the_text(self):
        text = "héllo, wörld \n"
        found = as_json("tokenize", MODEL, "--no-bos", stdin=text)
        self.assertEqual(found["text"], text)
        plain = stoke("tokenize", MODEL, "--no-bos", stdin=text)
        self.assertEqual([int(word) for word in plain.stdout.split()], found["tokens"])

    def test_inspect_json_has_the_keys(self):
        found = as_json("inspect", MODEL)
        self.keys(found, ["architecture", "parameters", "quantization", "layers", "context_length", "weights_bytes",
                          "memory_min_bytes", "memory_full_bytes"])
        self.assertEqual(found["architecture"], "llama")
        self.assertEqual(found["layers"], 2)
        self.assertLessEqual(found["memory_min_bytes"], found["memory_full_bytes"])

    def test_inspect_says_each_thing_once_and_truly(self):
        lines = stoke("inspect", MODEL).stdout.decode().splitlines()
        rows = dict(line.split(None, 1) for line in lines if not line.startswith(" "))
        self.assertEqual(rows["context"], "512 tokens; 512 unless --ctx says otherwise")
        self.assertRegex(rows["verdict"], r"^fits: it is held whole in the [0-9.]+ .iB there are$")
        given = stoke("inspect", MODEL, "-c", "64").stdout.decode()
        self.assertIn("512 tokens; 64 here, as --ctx says", given)
        done = stoke("inspect", MODEL, "--verify", "--json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("SHA256SUMS: no such file", done.stderr.decode())
        self.assertIn("--hashes FILE", done.stderr.decode())

    def test_doctor_speaks_to_people_and_to_programs(self):
        self.assertIn("memory_total_bytes", as_json("doctor"))
        said = stoke("doctor").stdout.decode()
        for word in ("memory_", "_bytes", "cpu "):
            self.assertNotIn(word, said)
        self.assertIn("memory available", said)

    def test_profile_of_a_model_names_the_missing_flag(self):
        self.fails(2, "profile", MODEL, "-f", "text", says=["-o STATS is missing", "stoke profile --help"])
        self.fails(2, "profile", MODEL, "-o", "counts", says=["-f TEXT is missing"])

    def test_convert_makes_a_store_that_inspect_verifies(self):
        model = os.path.join(FOLDER.name, "relu.gguf")
        store = os.path.join(FOLDER.name, "relu.stoke")
        self.assertEqual(stoke("synth", *SHAPE, "--ffn-act", "relu", "--density", "0", "-o", model, "-q").returncode, 0)
        made = as_json("convert", model, "-o", store, "--layout", "bundle", "--down", "codes")
        self.keys(made, ["output", "bytes", "resumed_bytes", "layers", "neurons", "record_bytes", "layout", "up",
                         "down"])
        self.assertEqual(made["bytes"], os.path.getsize(store))
        self.assertEqual(made["neurons"], 2 * 96)
        found = as_json("inspect", store, "--verify")
        self.assertIn("bundle", found["store"])
        self.assertIn("192 records", found["verified"])
        text = os.path.join(FOLDER.name, "text.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write("once upon a time")
        self.fails(1, "convert", model, "-o", store + ".stoke", "--stats", text,
                   says=["text.txt: it is no JSON object: no firing statistics", "-o STATS"])
        self.fails(1, "convert", MODEL, "-o", store, says=["silu", "relu"])
        self.fails(2, "convert", model, "-o", os.path.join(FOLDER.name, "relu.gguf"))
        self.fails(1, "convert", model, "-o", "/nonexistent/relu.stoke", says=["/nonexistent/relu.stoke: cannot"])
        with open(store, "r+b") as file:
            file.seek(-4096, os.SEEK_END)  # the seal
            file.write(b"damaged!")
        self.assertEqual(stoke("inspect", store, "--verify").returncode, 1)

    def test_options_that_a_file_contradicts_or_cannot_take_are_refused(self):
        relu = os.path.join(FOLDER.name, "states_relu.gguf")
        store = os.path.join(FOLDER.name, "states_relu.stoke")
        self.assertEqual(stoke("synth", *SHAPE, "--ffn-act", "relu", "--density", "0", "-o", relu, "-q").returncode, 0)
        self.assertEqual(stoke("convert", relu, "-o", store, "-q").returncode, 0)
        run = ["-p", "a", "-n", "1"]
        self.fails(1, "run", relu, *run, "--ffn-act", "silu", says=["states_relu.gguf", "silu", "relu (key llama."])
        self.fails(1, "run", store, *run, "--ffn-act", "drelu", says=["drelu", "relu (key stoke.activation)"])
        self.assertEqual(stoke("run", store, *run, "--ffn-act", "relu").returncode, 0)
        for verb in (["run", *run], ["inspect"]):
            self.fails(1, verb[0], MODEL, *verb[1:], "--quant", "q4_0", says=["tiny.gguf", "--quant q4_0"])
            self.fails(1, verb[0], store, *verb[1:], "--quant", "q8_0", says=["states_relu.stoke", "convert"])

    def test_wrong_usage_is_status_2(self):
        self.fails(2)
        self.fails(2, "fly")
        self.fails(2, "run")
        self.fails(2, "run", MODEL, "--temp", "warm")
        self.fails(2, "run", MODEL, "--memory", "much", says=["2G"])
        self.fails(2, "run", MODEL, "-p", "a", "-f", "b")
        self.fails(2, "bench", MODEL, "--prompt", "0", "--generate", "0")

    def test_usage_errors_name_the_verb_and_what_was_typed(self):
        self.fails(2, says=["run, chat", "(see stoke --help)"])
        self.fails(2, "fly", says=["unknown command 'fly'", "run, chat", "doctor"])
        self.fails(2, "help", "fly", says=["unknown command 'fly'"])
        self.fails(2, "run", says=["MODEL is required", "(see stoke run --help)"])
        self.fails(2, "run", MODEL, "-p", "a", "--temperature", "0", "--foo",
                   says=["not expected: --temperature 0 --foo"])
        self.fails(2, "bench", MODEL, "--prompt", "0", "--generate", "0", says=["(see stoke bench --help)"])
        self.assertEqual(stoke("help").stdout, stoke("--help").stdout)
        self.assertEqual(stoke("help", "bench").stdout, stoke("bench", "--help").stdout)
        self.assertEqual(stoke("help").returncode, 0)

    def test_values_that_need_no_model_are_usage_errors(self):
        for flag, wrong in (("--temp", "-1"), ("--temp", "nan"), ("--temp", "1e99"), ("--top-p", "2"), ("--top-p", "0"),
                            ("--min-p", "1.1"), ("--top-k", "-5"), ("--repeat-penalty", "0"), ("--dry-base", "0.5"),
                            ("--isa", "z80"), ("--ablation", "less"), ("--quant", "q9"), ("--logit-bias", "3"),
                            ("--logit-bias", "3=inf"), ("-s", "-2"), ("-c", "0"), ("-n", "-2"), ("-b", "99999")):
            with self.subTest(flag + " " + wrong):
                self.fails(2, "run", "missing.gguf", "-p", "a", flag, wrong, says=["--", wrong, "stoke run --help"])
        self.fails(2, "run", MODEL, "-p", "a", "--ablation", "less", says=["dense, bundles, cache", "flash"])
        self.fails(2, "ppl", MODEL, "-c", "3", says=["at least 4"])

    def test_every_instruction_set_of_the_build_has_a_name_that_is_accepted(self):
        refused = [stoke("run", MODEL, "-p", "a", "--isa", isa).stderr.decode() for isa in ("amx", "neon")]
        known = next(text for text in refused if "there are:" in text).strip().split("there are: ")[1].split(", ")
        self.assertIn("portable", known)
        for isa in known:
            self.assertEqual(stoke("run", MODEL, "-p", "a", "-n", "1", "--isa", isa).returncode, 0, isa)

    def test_spellings_of_other_programs(self):
        greedy = ["--temp", "0", "--ignore-eos"]
        wanted = stoke("run", MODEL, "-p", "hello", "-n", "4", "-c", "128", "-b", "8", *greedy).stdout
        for words in (["-m", MODEL, "-p", "hello"], ["--model", MODEL, "hello"], [MODEL, "hello"]):
            done = stoke("run", *words, "--n-predict", "4", "--ctx-size", "128", "--batch-size", "8", *greedy)
            self.assertEqual((done.returncode, done.stdout), (0, wanted), done)
        self.assertEqual(stoke("run", MODEL, "list", "-n", "1").returncode, 0)  # a text, not the command
        self.fails(2, "run", MODEL, "-m", MODEL, says=["--model is given more than once"])
        self.fails(2, "run", MODEL, "hello", "-p", "b", says=["--prompt is given more than once"])
        self.fails(2, "run", MODEL, "hello", "-f", "b", says=["--file"])
        self.fails(2, "ppl", MODEL, "hello", says=["not expected: hello"])
        found = as_json("bench", "-m", MODEL, "-p", "16", "-n", "4", "--repeat", "1")
        self.assertEqual((found["prompt"], found["generate"]), (16, 4))

    def test_the_seed_is_told(self):
        drawn = ["run", MODEL, "-p", "a", "-n", "8", "--temp", "1.5", "--ignore-eos"]
        first = as_json(*drawn, "-s", "-1")
        again = as_json(*drawn, "-s", str(first["seed"]))
        self.assertEqual((again["seed"], again["tokens"]), (first["seed"], first["tokens"]))
        self.assertNotEqual(as_json(*drawn)["seed"], first["seed"])
        most = str(2**64 - 1)
        self.assertIn(f", seed {most}", stoke(*drawn, "-s", most, "--stats").stderr.decode())
        self.assertNotIn("seed", stoke(*drawn[:-3], "--temp", "0", "--stats").stderr.decode())

    def test_help_of_ctx_states_the_default_of_the_verb(self):
        for verb, default in (("ppl", "(default: 512)"), ("bench", "what is measured"), ("run", "only that fits"),
                              ("inspect", "4096 or the model's, whichever is less)")):
            lines = stoke(verb, "--help").stdout.decode().splitlines()
            at = next(i for i, line in enumerate(lines) if "-c,--ctx" in line)
            self.assertIn(default, lines[at] + lines[at + 1])

    def test_failures_are_one_line_and_status_1(self):
        missing = os.path.join(FOLDER.name, "missing.gguf")
        self.fails(1, "run", missing, "-p", "a", says=["missing.gguf"])
        self.fails(1, "run", MODEL, "-p", "word " * 60, "-c", "64", says=["64", "-c"])
        self.fails(1, "run", MODEL, "-p", "word " * 600, "-c", "64", says=["64", "shorten"])
        self.fails(1, "run", MODEL, "-p", "a", "--memory", "1M", says=["--memory", "at least", "lower: -c"])
        self.fails(1, "run", MODEL, "-p", "a", "--ablation", "dense", says=["tiny.gguf", "neuron stores", "convert"])
        done = stoke("run", MODEL, "-p", "a", "--firings", os.path.join(FOLDER.name, "firings"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"models with experts", done.stderr)
        self.assertNotIn(b"ablation", done.stderr)
        self.fails(1, "ppl", MODEL, "-p", "short", says=["window"])
        garbage = os.path.join(FOLDER.name, "garbage.gguf")
        pathlib.Path(garbage).write_bytes(b"not a model" * 100)
        self.fails(1, "inspect", garbage, says=["garbage.gguf"])

    def test_outputs_never_overwrite_what_is_read(self):
        size = os.path.getsize(MODEL)
        beside = os.path.join(FOLDER.name, "link.gguf")
        os.symlink(MODEL, beside)
        text = os.path.join(FOLDER.name, "text")
        pathlib.Path(text).write_text("some text\n")
        for arguments in [["run", MODEL, "-p", "a", "--trace", MODEL], ["run", beside, "-p", "a", "--firings", MODEL],
                          ["profile", MODEL, "-f", text, "-o", beside], ["profile", MODEL, "-f", text, "-o", text],
                          ["synth", *SHAPE, "--ffn-act", "relu", "-o", text, "--stats-out", text]]:
            self.fails(1, *arguments, says=["overwrite" if "synth" not in arguments else "the same file"])
            self.assertEqual(os.path.getsize(MODEL), size)

    def test_closed_and_full_standard_streams(self):
        def run(streams, *arguments):
            command = ["sh", "-c", f'exec "$0" "$@" {streams}', STOKE, *arguments]
            return subprocess.run(command, capture_output=True, timeout=60)
        trace = os.path.join(FOLDER.name, "apart.json")
        done = run(">&-", "run", MODEL, "-p", "a", "-n", "4", "--trace", trace)
        self.assertEqual(done.returncode, 1, done)
        with open(trace) as file:
            json.load(file)  # and no text of the answer
        self.assertIn(b"prompt is empty", run("<&-", "run", MODEL, "-n", "1").stderr)
        for streams in ["2>/dev/full", "2>&-"]:
            self.assertEqual(run(streams, "run", "nosuch.gguf", "-p", "a").returncode, 1)
            self.assertEqual(run(streams, "run", "--bogus").returncode, 2)
            self.assertEqual(run(streams, "run", MODEL, "-p", "a", "-n", "2", "--stats").returncode, 0)

    def test_unknown_family_lists_the_known(self):
        data = pathlib.Path(MODEL).read_bytes()
        # The architecture's name and all keys that start with it, in place: same lengths.
        data = data.replace(b"llama.", b"gnarl.").replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gnarl", 1)
        strange = os.path.join(FOLDER.name, "strange.gguf")
        pathlib.Path(strange).write_bytes(data)
        self.fails(1, "run", strange, "-p", "a", says=["gnarl", "qwen3"])

    def test_interrupt_stops_cleanly(self):
        process = subprocess.Popen([STOKE, "run", MODEL, "-p", "a", "--ignore-eos", "--stats"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        # The tiny model may have finished first.
        self.assertIn(process.returncode, (0, 130), err)
        self.assertIn(b"tok/s", err)
        out.decode("utf-8")

    def test_chat_takes_lines_from_a_pipe(self):
        done = stoke("chat", MODEL, stdin="/help\n/exit\n")
        # The tiny model has no chat template, and says so.
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"chat template", done.stderr)


class Chat(unittest.TestCase):
    """Conversations through a pipe, with a template that every model understands."""
    TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"

    @classmethod
    def setUpClass(cls):
        cls.model = os.path.join(FOLDER.name, "chat.gguf")
        Gguf(MODEL).write_with_text(cls.model, "tokenizer.chat_template", cls.TEMPLATE)

    def chat(self, *lines):
        done = stoke("chat", self.model, "-n", "2", "--temp", "0", stdin="\n".join(lines) + "\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode(), done.stderr.decode()

    def messages(self, *lines):
        """What the user said, as /save writes it, and standard error."""
        path = os.path.join(FOLDER.name, "saved.json")
        _, err = self.chat(*lines, f"/save {path}")
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)["messages"]
        return [m["content"] for m in saved if m["role"] != "assistant"], err

    def test_messages_of_several_lines(self):
        for lines, message in (
                (["one \\", "two"], "one \ntwo"),
                (['"""', "one", "two", '"""'], "one\ntwo"),
                (['"""one', 'two"""'], "one\ntwo"),
                (['"""one"""'], "one"),
                (['"""', "", 'say """a""" twice', '""" '], '\nsay """a""" twice'),
        ):
            self.assertEqual(self.messages(*lines)[0], [message], lines)

    def test_blanks_are_no_message(self):
        self.assertEqual(self.messages("", "   ", "\t", '"""', " ", '"""', '""""""')[0], [])

    def test_reset_forgets_and_says_so(self):
        said, err = self.messages("one", "/reset")
        self.assertEqual(said, [])
        self.assertIn("forgotten", err)
        out, _ = self.chat("one", "/stats", "/reset", "/stats")
        contexts = [line.split()[1] for line in out.splitlines() if line.startswith("context: ")]
        self.assertNotEqual(contexts[0], "0")
        self.assertEqual(contexts[1], "0")

    def test_system_is_set_shown_and_cleared(self):
        said, err = self.messages("one", "/system Be brief.", "/system", "two")
        self.assertEqual(said, ["Be brief.", "two"])
        self.assertIn("begins anew", err)
        self.assertIn("Be brief.\n", self.chat("/system Be brief.", "/system  ")[0])
        self.assertEqual(self.messages("/system Be brief.", '/system ""', "two")[0], ["two"])

    def test_save_names_the_file_and_says_what_it_replaced(self):
        path = os.path.join(FOLDER.name, "twice.json")
        lines = self.chat("one", f"/save {path}", f"/save {path}")[1].splitlines()
        self.assertEqual(lines[0], f"stoke: 2 messages saved to {path}")
        self.assertIn("replaced", lines[1])
        self.assertIn("/nonexistent/x: cannot", self.chat("/save /nonexistent/x")[1])

    def typed(self, **environment):
        """What was typed on a terminal, and is left in the state's folder."""
        state = tempfile.mkdtemp(dir=FOLDER.name)
        terminal, end = pty.openpty()
        with subprocess.Popen([STOKE, "chat", self.model], stdin=end, stdout=end, stderr=subprocess.PIPE,
                              env={**os.environ, "XDG_STATE_HOME": state, "TERM": "dumb", **environment}) as process:
            os.close(end)
            try:
                for line in (b"/stats\n", b"/exit\n"):
                    # Typed once it is asked for: what comes while the editor takes the terminal over may be lost.
                    shown = b""
                    while not shown.endswith(b"> "):
                        shown += os.read(terminal, 1 << 16)
                    os.write(terminal, line)
                while os.read(terminal, 1 << 16):
                    pass
            except OSError:  # the other end is closed
                pass
            self.assertEqual(process.wait(60), 0)
        os.close(terminal)
        return state

    def test_history_is_kept_where_the_user_says(self):
        file = os.path.join(self.typed(), "stoke/history")
        with open(file, encoding="utf-8") as history:
            self.assertIn("/stats", history.read())
        self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.typed(STOKE_HISTORY="")), [])
        other = os.path.join(FOLDER.name, "other_history")
        self.assertEqual(os.listdir(self.typed(STOKE_HISTORY=other)), [])
        self.assertTrue(os.path.exists(other))

    def test_bye_leaves(self):
        self.assertEqual(self.chat("/bye", "/help")[0], "")


if __name__ == "__main__":
    made = stoke("synth", *SHAPE, "-o", MODEL, "-q")
    assert made.returncode == 0, made.stderr
    unittest.main(argv=[sys.argv[0]], verbosity=1)
