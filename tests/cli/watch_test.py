#!/usr/bin/env python3
"""What users watch while a model streams: traces, the live line on a terminal, forecasts. usage: watch_test.py STOKE"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import tty
import unittest

STOKE = os.path.abspath(sys.argv[1])
with open(STOKE, "rb") as program:
    SANITIZED = b"__asan" in program.read()
FOLDER = tempfile.TemporaryDirectory()
# No kept profile: forecasts come from a trial read.
ENVIRONMENT = dict(os.environ, XDG_CACHE_HOME=os.path.join(FOLDER.name, "cache"))
SHAPE = ["--layers", "6", "--dim", "512", "--heads", "8", "--kv-heads", "4", "--vocab", "2048", "-c", "4096"]
KINDS = {
    "dense": ["--arch", "llama", "--ffn", "1536", "--type", "q4_0"],
    "experts": ["--arch", "qwen3moe", "--ffn", "256", "--experts", "16", "--experts-used", "3", "--type", "q4_0"],
    "store": ["--arch", "llama", "--ffn", "1536", "--ffn-act", "relu", "--type", "q4_0"],
}
GREEDY = ["--temp", "0", "--ignore-eos", "-t", "2", "-b", "16"]


def stoke(*arguments):
    return subprocess.run([STOKE, *arguments], capture_output=True, timeout=300, env=ENVIRONMENT,
                          stdin=subprocess.DEVNULL)


def as_json(*arguments):
    done = stoke(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model(kind):
    path = os.path.join(FOLDER.name, f"{kind}.{'stoke' if kind == 'store' else 'gguf'}")
    if not os.path.exists(path):
        made = stoke("synth", *SHAPE, *KINDS[kind], "-o", path, "-q")
        assert made.returncode == 0, made.stderr
    return path


def little_memory(path, context, more=3 << 20):
    """Flags for a budget that is a little above the least; the process itself moves by a megabyte or two."""
    least = as_json("inspect", path, "-c", str(context), "-b", "16", "-t", "2")["memory_min_bytes"]
    return ["-c", str(context), "--memory", str(least + more)]


class Pty:
    """A process with standard error on a terminal, raw, so that bytes are as they were written."""

    def __init__(self, arguments, stdout_too):
        self.end, child = pty.openpty()
        tty.setraw(child)
        termios.tcsetwinsize(child, (24, 100)) if hasattr(termios, "tcsetwinsize") else None
        self.process = subprocess.Popen([STOKE, *arguments], stdin=subprocess.DEVNULL, env=ENVIRONMENT, stderr=child,
                                        stdout=child if stdout_too else subprocess.DEVNULL)
        os.close(child)
        self.seen = b""

    def read(self, until=None, seconds=240):
        """Reads to the end, or until a pattern was seen."""
        deadline = time.monotonic() + seconds
        while until is None or not re.search(until, self.seen):
            assert time.monotonic() < deadline, self.seen
            if not select.select([self.end], [], [], 1)[0]:
                continue
            try:
                more = os.read(self.end, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            self.seen += more
        return self.seen

    def close(self):
        self.read()
        os.close(self.end)
        return self.process.wait(timeout=60)


class Watch(unittest.TestCase):
    def nests(self, spans):
        """Spans of one thread lie beside or within each other."""
        stack = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while stack and stack[-1] <= start:
                stack.pop()
            if stack:
                self.assertLessEqual(end, stack[-1])
            stack.append(end)

    def check_trace(self, path):
        with open(path, encoding="utf-8") as file:
            trace = json.load(file)
        spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
        for thread in {e["tid"] for e in spans}:
            # In whole nanoseconds, where sums are exact.
            self.nests([(round(e["ts"] * 1000), round(e["ts"] * 1000) + round(e["dur"] * 1000))
                        for e in spans if e["tid"] == thread])
        begun = {e["id"]: e for e in trace["traceEvents"] if e["ph"] == "b"}
        ended = {e["id"]: e for e in trace["traceEvents"] if e["ph"] == "e"}
        self.assertEqual(begun.keys(), ended.keys())
        self.assertTrue(all(ended[i]["ts"] >= begun[i]["ts"] for i in begun))
        self.assertEqual(set(trace["otherData"]["dropped_events"].values()), {0})
        names = [e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"]
        self.assertEqual(names, ["worker 0, control", "worker 1", "reads"])
        return spans, list(begun.values())

    def test_trace_agrees_with_statistics(self):
        for kind in KINDS:
            with self.subTest(kind):
                path = model(kind)
                file = os.path.join(FOLDER.name, f"{kind}.json")
                run = ["run", path, "-p", "one two three four five six seven eight", "-n", "6", *GREEDY]
                plain = as_json(*run, *little_memory(path, 256))
                # The trace's rings are 9 MiB of the budget.
                found = as_json(*run, *little_memory(path, 256, 12 << 20), "--trace", file)
                self.assertEqual(found["logits_hash"], plain["logits_hash"])
                spans, reads = self.check_trace(file)
                named = lambda name: [e for e in spans if e["name"] == name]
                self.assertEqual(sum(e["args"]["bytes"] for e in reads), found["stats"]["bytes_read"])
                self.assertGreater(len(reads), 0)
                if not SANITIZED:  # the sanitizer's own memory is in no budget
                    self.assertLessEqual(found["stats"]["peak_rss_bytes"], found["stats"]["budget_bytes"])
                self.assertTrue(all(e["args"]["file"] == path for e in reads))
                self.assertEqual(sum(e["args"]["tokens"] for e in named("prompt")), found["prompt_tokens"])
                self.assertEqual(len(named("token")), found["generated_tokens"] - 1)
                passes = len(named("prompt")) + len(named("token"))
                self.assertEqual(len(named("attention")), 6 * passes)
                self.assertIn("wait for disk", {e["name"] for e in spans})
                self.assertIn("work", {e["name"] for e in spans if e["tid"] == 1})
                if kind == "store":
                    self.assertTrue(named("gates") and named("cluster") and named("whole clusters"))

    def test_trace_of_a_model_in_memory(self):
        file = os.path.join(FOLDER.name, "whole.json")
        found = as_json("run", model("dense"), "-p", "a", "-n", "3", *GREEDY, "-c", "256", "--trace", file)
        spans, reads = self.check_trace(file)
        self.assertEqual(len([e for e in spans if e["name"] == "token"]), found["generated_tokens"] - 1)
        self.assertEqual(reads, [])

    def test_unwritable_trace_is_refused_before_loading(self):
        done = stoke("run", model("dense"), "-p", "a", "--trace", "/no/such/folder/trace.json")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"/no/such/folder/trace.json", done.stderr)

    def test_live_line_while_text_goes_elsewhere(self):
        path = model("dense")
        file = os.path.join(FOLDER.name, "stopped.json")
        arguments = ["run", path, "-p", "a", *GREEDY, *little_memory(path, 4096, 16 << 20), "--trace", file]
        watched = Pty(arguments, stdout_too=False)
        watched.read(until=rb"tok/s, \d+ MB/s read, \d+ % hits, [\d.]+ MiB of [\d.]+ MiB")
        watched.process.send_signal(signal.SIGINT)
        self.assertIn(watched.close(), (0, 130))
        self.assertIn(b"bigger than its memory", watched.seen)
        self.assertTrue(watched.seen.endswith(b"\r\033[K"), watched.seen[-200:])
        for frame in watched.seen.split(b"\r")[1:]:
            self.assertLess(len(frame), 100)
        with open(file, encoding="utf-8") as trace:  # whole after Ctrl-C, too
            self.assertGreater(len(json.load(trace)["traceEvents"]), 0)

    def test_live_line_never_touches_text_on_the_same_terminal(self):
        path = model("dense")
        run = ["run", path, "-p", "word " * 100, "-n", "400", *GREEDY, *little_memory(path, 1024)]
        text = as_json(*run)["text"].encode()
        watched = Pty(run, stdout_too=True)
        self.assertEqual(watched.close(), 0)
        self.assertTrue(watched.seen.endswith(text + (b"" if text.endswith(b"\n") else b"\n")))

    def test_waiting_for_a_typed_prompt_is_said(self):
        for quiet, said in (([], b"Ctrl-D"), (["-q"], b"")):
            run = [STOKE, "run", model("dense"), "-n", "1", *GREEDY, *quiet]
            end, child = pty.openpty()
            with subprocess.Popen(run, stdin=child, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=ENVIRONMENT) as process:
                os.close(child)
                os.write(end, b"hello\n\x04")
                out, err = process.communicate(timeout=120)
            os.close(end)
            self.assertEqual(process.returncode, 0, err)
            self.assertEqual(said in err, True, err)
            self.assertEqual(b"stoke chat" in err, bool(said), err)
            self.assertGreater(len(out), 0)

    def test_quiet_shows_nothing(self):
        path = model("dense")
        run = ["run", path, "-p", "a", "-n", "400", *GREEDY, *little_memory(path, 1024)]
        watched = Pty([*run, "-q"], stdout_too=False)
        self.assertEqual(watched.close(), 0)
        self.assertEqual(watched.seen, b"")

    def test_forecast_is_said_before_and_beside(self):
        for kind in KINDS:
            with self.subTest(kind):
                path = model(kind)
                budget = little_memory(path, 256)
                found = as_json("inspect", path, *budget, "-b", "16", "-t", "2")
                self.assertFalse(found["fits"])
                self.assertEqual(found["budget_source"], "--memory")
                self.assertGreater(found["predicted_decode_tokens_per_s"], 0)
                self.assertGreater(found["predicted_bytes_read_per_token"], 0)
                self.assertEqual(found["predicted_from"], "a trial read")
                self.assertIn("tok/s", found["advice"])
                done = stoke("run", path, "-p", "a", "-n", "4", *GREEDY, *budget, "--stats")
                said = done.stderr.decode()
                self.assertIn("at most about", said)
                self.assertIn("(--memory)", said)
                self.assertIn("MB/s", said)
                stats = as_json("run", path, "-p", "a", "-n", "4", *GREEDY, *budget)["stats"]
                self.assertEqual(stats["budget_source"], "--memory")
                self.assertIn(stats["reader"], ("io_uring", "threads"))
                self.assertGreater(stats["read_bytes_per_s"], 0)
                self.assertGreater(stats["predicted_decode_tokens_per_s"], 0)
                if kind == "dense":  # nothing to guess: what was foreseen is what a token reads, less the supersets
                    share = found["predicted_bytes_read_per_token"] / stats["bytes_read_per_token"]
                    self.assertLess(abs(share - 1), 0.3)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
