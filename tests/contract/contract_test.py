#!/usr/bin/env python3
"""The budget is a contract: in a memory cgroup of SIZE + 48 MiB nothing is killed, nothing grows past SIZE, no bit
changes; signals end a run cleanly wherever they find it; a neighbour that takes memory does no harm.

usage: contract_test.py STOKE [--long]     --long: every model with every budget, context, batch and verb
"""
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

from harness import MARGIN, MIB, Group, Stoke, cgroup_refusal, forget

LONG = "--long" in sys.argv
STOKE = Stoke(sys.argv[1])
REFUSAL = cgroup_refusal()
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
# What headers and tables read through the page cache may leave there.
CACHED_MAX = 8 * MIB
WORDS = "The quick brown fox jumps over the lazy dog and then some more "
GREEDY = ["--temp", "0", "--ignore-eos", "--json", "-q"]


def models():
    """Names of STOKE.model(), and files that may be here: (path, flags)."""
    for name in STOKE.SHAPES:
        yield STOKE.model(name), []
    real = os.path.join(ROOT, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    if os.path.exists(real):
        yield real, []


def prompt(tokens):
    """A text of at least so many tokens, for any of the models: synthetic vocabularies have about one a word."""
    return " ".join(WORDS.split()[i % 13] for i in range(tokens))


def inspect(model, flags):
    return STOKE.run("inspect", model, "--json", *flags).json()


def budgets(model, flags, names):
    """(name, bytes): the least that inspect promises, a quarter more, half of what all of it takes, all."""
    found = inspect(model, flags)
    least, full = found["memory_min_bytes"], found["memory_full_bytes"]
    all_of_them = {"least": least, "quarter more": least * 5 // 4, "half": max(least, full // 2), "all": full}
    return [(name, all_of_them[name]) for name in names]


@unittest.skipIf(REFUSAL, REFUSAL)
class Budget(unittest.TestCase):
    """Every check of a run under a limit lies in held()."""

    def held(self, run, budget, group):
        self.assertEqual(run.status, 0, run.err)
        stats = run.json()["stats"]
        self.assertEqual(group.kills(), 0)
        self.assertEqual(stats["budget_bytes"], budget)
        self.assertLessEqual(stats["peak_rss_bytes"], budget)
        self.assertLessEqual(run.peak_anonymous, budget)
        self.assertLessEqual(group.cached(), CACHED_MAX)
        self.assertLessEqual(stats["page_cache_bytes"], CACHED_MAX)

    def under(self, budget, verb, model, arguments, stdin=b""):
        """A run in a group of SIZE + 48 MiB that stays within its budget; its JSON."""
        forget(model)
        with Group(budget + MARGIN) as group:
            run = STOKE.run(verb, model, *arguments, "--memory", budget, group=group, stdin=stdin)
            self.held(run, budget, group)
            return run.json()

    def same_tokens(self, model, flags, names, tokens):
        arguments = ["-p", prompt(tokens), "-n", "12", *GREEDY, *flags]
        whole = STOKE.run("run", model, *arguments).json()
        for name, budget in budgets(model, flags, names):
            with self.subTest(model=os.path.basename(model), budget=name, bytes=budget, flags=" ".join(flags)):
                found = self.under(budget, "run", model, arguments)
                self.assertEqual(found["logits_hash"], whole["logits_hash"])
                self.assertEqual(found["tokens"], whole["tokens"])
                reads = found["stats"]["bytes_read_per_token"]
                self.assertEqual(reads == 0, name == "all", f"{reads} bytes read a token")

    def test_run_gives_the_tokens_of_memory_within_its_budget(self):
        every = ["least", "quarter more", "half", "all"]
        for model, _ in models():
            self.same_tokens(model, ["-c", "512"], every, 60)
            if not LONG:
                continue
            self.same_tokens(model, ["-c", "2048"], every, 450)
            self.same_tokens(model, ["-c", "2048", "-b", "16"], every, 300)
            self.same_tokens(model, ["-c", "512", "-b", "1", "-t", "1"], every, 20)
            self.same_tokens(model, ["-c", "4096", "--kv-type", "q8_0"], every, 700)

    def test_bench_stays_within_its_budget(self):
        for model, _ in models():
            for name, budget in budgets(model, ["-c", "128"], ["least", "half"] if LONG else ["half"]):
                with self.subTest(model=os.path.basename(model), budget=name):
                    self.under(budget, "bench", model, ["--prompt", "100", "--generate", "6", "--repeat", "1", "-c",
                                                        "128", "--json", "-q"])

    def test_ppl_scores_the_same_within_its_budget(self):
        for model, _ in models():
            arguments = ["-c", "128", "--windows", "2", "--json", "-q"]
            text = prompt(300).encode()
            whole = STOKE.run("ppl", model, *arguments, stdin=text).json()
            for name, budget in budgets(model, ["-c", "128"], ["least", "half"] if LONG else ["half"]):
                with self.subTest(model=os.path.basename(model), budget=name):
                    found = self.under(budget, "ppl", model, arguments, stdin=text)
                    self.assertEqual(found["nll"], whole["nll"])

    def test_default_context_shrinks_to_what_fits(self):
        for model, _ in models():
            budget = inspect(model, ["-c", "512"])["memory_min_bytes"] + 2 * MIB
            arguments = ["-p", prompt(60), "-n", "12", *GREEDY]
            with self.subTest(model=os.path.basename(model)):
                whole = STOKE.run("run", model, *arguments).json()
                found = self.under(budget, "run", model, arguments)
                self.assertEqual(found["logits_hash"], whole["logits_hash"])
                short = ["run", model, "-p", "a", "-n", "2", "--memory", budget]
                self.assertIn("tokens instead of 4096", STOKE.run(*short).err)
                self.assertEqual(STOKE.run(*short, "-c", "4096").status, 1)
                self.assertEqual(STOKE.run(*short[:5], "4000", *short[6:]).status, 1)

    def test_below_the_least_says_what_would_do(self):
        for model, _ in models():
            least = inspect(model, ["-c", "512"])["memory_min_bytes"]
            with self.subTest(model=os.path.basename(model)):
                run = STOKE.run("run", model, "-p", "a", "-n", "2", "-c", "512", "--memory", least - 6 * MIB)
                self.assertEqual(run.status, 1, run.err)
                self.assertEqual(len(run.err.splitlines()), 1, run.err)
                named = re.search(r"at least ([0-9.]+) MiB", run.err)
                self.assertIsNotNone(named, run.err)
                self.assertIn("lower: -c", run.err)
                self.assertLess(abs(float(named.group(1)) * MIB - least), MIB)  # what inspect says
                enough = int((float(named.group(1)) + 1) * MIB)
                again = STOKE.run("run", model, "-p", "a", "-n", "2", "-c", "512", "--memory", enough)
                self.assertEqual(again.status, 0, again.err)
                close = re.search(r"close to the least that runs, ([0-9.]+) MiB", again.err)
                self.assertIsNotNone(close, again.err)
                self.assertLess(abs(float(close.group(1)) * MIB - least), MIB)


@unittest.skipIf(REFUSAL, REFUSAL)
class Signals(unittest.TestCase):
    """Where a signal finds a run, the run ends as if it had come to the end: statistics, memory, exit status."""

    def start(self, model, budget, tokens, group):
        arguments = ["-p", prompt(tokens), "-n", "3000", "--temp", "0", "--ignore-eos", "-c", "4096", "--stats"]
        return STOKE.start("run", model, *arguments, "--memory", budget, group=group)

    def ended(self, run, number, budget, group):
        run.process.send_signal(number)
        run.wait()
        self.assertEqual(run.status, 128 + number, run.err)
        self.assertIn("tok/s", run.err)
        self.assertEqual(group.kills(), 0)
        self.assertLessEqual(run.peak_anonymous, budget)

    def cases(self):
        for name in ["dense.gguf", "relu.stoke"] if not LONG else STOKE.SHAPES:
            model = STOKE.model(name)
            yield name, model, inspect(model, ["-c", "4096"])["memory_min_bytes"]

    def test_while_the_prompt_is_read(self):
        for name, model, budget in self.cases():
            with self.subTest(model=name), Group(budget + MARGIN) as group:
                run = self.start(model, budget, 900, group)
                self.assertIn(b"bigger than its memory", run.process.stderr.readline())
                self.ended(run, signal.SIGINT, budget, group)
                self.assertEqual(run.out, "")

    def test_between_and_within_tokens(self):
        chance = random.Random(1)
        for name, model, budget in self.cases():
            for number in [signal.SIGINT, signal.SIGTERM] * (5 if LONG else 1):
                with self.subTest(model=name, signal=number), Group(budget + MARGIN) as group:
                    run = self.start(model, budget, 20, group)
                    run.process.stdout.read(1)
                    time.sleep(chance.random() * 0.05)
                    self.ended(run, number, budget, group)

    def test_while_the_model_is_opened(self):
        for name, model, budget in self.cases():
            for number in [signal.SIGINT, signal.SIGTERM]:
                with self.subTest(model=name, signal=number):
                    run = STOKE.start("run", model, "-p", "a", "-n", "2")
                    time.sleep(random.random() * 0.03)
                    run.process.send_signal(number)
                    run.wait()
                    # Before the handler is there, and after the end, a signal does what it does.
                    self.assertIn(run.status, (0, 128 + number, -number), run.err)


# Takes argv[1] MiB piece by piece, says so, and holds them until its standard input ends; the kernel's first choice.
NEIGHBOUR = """
import sys
open("/proc/self/oom_score_adj", "w").write("1000")
held = [bytearray(b"x" * (1 << 20)) for _ in range(int(sys.argv[1]))]
print("there", flush=True)
sys.stdin.read()
"""


@unittest.skipIf(REFUSAL, REFUSAL)
class Neighbour(unittest.TestCase):
    """What docs/bigger-than-memory.md promises about others in the same cgroup."""

    MARGIN = 64 * MIB  # what a run without --memory leaves to others

    def neighbour(self, mib, group):
        return subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(mib)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=group.enter)

    def end(self, neighbour):
        neighbour.stdin.close()
        neighbour.wait()
        neighbour.stdout.close()

    def beside(self, model, memory, limit, mib):
        """A run of 40 tokens in a group of `limit`, joined by a neighbour of `mib` after its first tokens."""
        arguments = ["-p", "hello there", "-n", "40", "--temp", "0", "--ignore-eos", "-c", "512", "-q"]
        whole = STOKE.run("run", model, *arguments)
        with Group(limit) as group:
            run = STOKE.start("run", model, *arguments, *memory, group=group)
            first = run.process.stdout.read(1)
            neighbour = self.neighbour(mib, group)
            run.wait()
            said = neighbour.stdout.read(5) if neighbour.poll() is None else b""
            self.end(neighbour)
            self.assertEqual(run.status, 0, run.err)
            self.assertEqual(first.decode() + run.out, whole.out)
            return group.kills(), said

    def test_margin_of_a_run_without_memory_is_left_to_others(self):
        for name in ["dense.gguf", "relu.stoke"]:
            model = STOKE.model(name)
            limit = inspect(model, ["-c", "512"])["memory_min_bytes"] + self.MARGIN + 12 * MIB
            with self.subTest(model=name):
                self.assertEqual(self.beside(model, [], limit, 30), (0, b"there"))

    def test_who_takes_more_than_there_is_ends_and_not_the_run(self):
        for name in ["dense.gguf", "relu.stoke"]:
            model = STOKE.model(name)
            least = inspect(model, ["-c", "512"])["memory_min_bytes"] + 8 * MIB
            with self.subTest(model=name):
                kills, said = self.beside(model, ["--memory", least], least + MARGIN, 400)
                self.assertEqual(said, b"")
                self.assertGreaterEqual(kills, 1)

    def test_who_came_first_is_counted(self):
        model = STOKE.model("dense.gguf")
        least = inspect(model, ["-c", "512"])["memory_min_bytes"]
        with Group(least + MARGIN) as group:
            neighbour = self.neighbour(50, group)
            self.assertEqual(neighbour.stdout.read(5), b"there")
            run = STOKE.run("run", model, "-p", "a", "-c", "512", "--memory", least, group=group)
            self.end(neighbour)
            self.assertEqual(run.status, 1, run.err)
            self.assertIn("at least", run.err)
            self.assertEqual(group.kills(), 0)


if __name__ == "__main__":
    if REFUSAL:
        print(f"skipped: {REFUSAL}", file=sys.stderr)
    unittest.main(argv=[sys.argv[0]], verbosity=2 if LONG else 1)
