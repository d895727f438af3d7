#!/usr/bin/env python3
"""What a careless or hostile user can hand to stoke: every case ends, by an exit status of 0 to 2 and, where it fails,
with one line that says what and where; nothing half done is left under a final name. usage: hostile_test.py STOKE
"""
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

from gguf_file import SCALARS, Gguf, patch
from harness import FewThreads, Stoke

STOKE = Stoke(sys.argv[1])
TINY = ["--arch", "llama", "--layers", "2", "--dim", "64", "--ffn", "96", "--heads", "4", "--kv-heads", "2", "--vocab",
        "512", "-c", "512"]
TINY_RELU = ["--arch", "llama", "--layers", "2", "--dim", "128", "--ffn", "256", "--heads", "4", "--kv-heads", "2",
             "--vocab", "512", "-c", "512", "--ffn-act", "relu"]
RUN = ["-p", "hello", "-n", "2", "--temp", "0", "--ignore-eos"]
INTEGERS = {0: 8, 1: 7, 2: 16, 3: 15, 4: 32, 5: 31, 10: 64, 11: 63}  # type: bits of its largest value


def synth(name, *flags):
    path = STOKE.path(name)
    if not os.path.exists(path):
        done = STOKE.run("synth", *(flags or TINY), "--type", "q8_0", "-o", path, "-q")
        assert done.status == 0, done.err
    return path


def sanitized():
    with open(STOKE.program, "rb") as program:
        return b"__asan" in program.read()


class Hostile(unittest.TestCase):
    def refused(self, run, says=(), statuses=(1,)):
        self.assertIn(run.status, statuses, (run.command, run.status, run.err))
        self.assertEqual(len(run.err.splitlines()), 1, (run.command, run.err))
        self.assertLess(len(run.err), 2000)
        for part in says:
            self.assertIn(part, run.err)

    def survives(self, run):
        """Ends by itself, and speaks where it fails."""
        self.assertIn(run.status, (0, 1, 2), (run.command, run.status, run.err))
        self.assertEqual(run.status != 0, run.err.startswith("stoke: "), (run.command, run.err))


class ModelPaths(Hostile):
    def test_what_is_no_file(self):
        fifo, loop, empty, dangling = (STOKE.path(n) for n in ("fifo.gguf", "loop.gguf", "empty.gguf", "dangling.gguf"))
        os.mkfifo(fifo)
        os.symlink(loop, loop)
        os.symlink(STOKE.path("nothing"), dangling)
        open(empty, "wb").close()
        folder = STOKE.path("folder.gguf")
        os.mkdir(folder)
        for path in (fifo, loop, empty, dangling, folder, "/dev/null", "/dev/zero", "/proc/self/mem", "/", "",
                     "x" * 300):
            for verb in (["run"], ["inspect"], ["inspect", "--verify"], ["tokenize", "-p", "a"],
                         ["convert", "-o", STOKE.path("out.stoke")]):
                with self.subTest(path=path[:40], verb=verb):
                    self.refused(STOKE.run(verb[0], path, *verb[1:]), statuses=(1, 2))
        self.assertFalse(os.path.exists(STOKE.path("out.stoke")))

    def test_cut_anywhere(self):
        for name, flags in (("cut.gguf", TINY), ("cut.stoke", TINY_RELU)):
            whole = synth("whole_" + name, *flags)
            size, end = os.path.getsize(whole), Gguf(whole).header_end
            chance = random.Random(5)
            for length in [chance.randrange(end) for _ in range(12)] + [chance.randrange(end, size) for _ in range(8)]:
                path = STOKE.path(name)
                shutil.copyfile(whole, path)
                os.truncate(path, length)
                with self.subTest(name=name, length=length):
                    self.refused(STOKE.run("run", path, *RUN), [name])

    def test_numbers_that_lie(self):
        whole = synth("whole.gguf")
        parts = Gguf(whole)
        path = STOKE.path("lies.gguf")
        for name, (kind, at) in parts.keys.items():
            if kind in INTEGERS:
                most = (1 << INTEGERS[kind]) - 1
                values = [struct.pack("<" + SCALARS[kind], v & most) for v in (0, 1, 3, 255, most // 2, most - 1, most)]
            elif kind in (6, 12):
                values = [struct.pack("<" + SCALARS[kind], v) for v in (0.0, -1.0, 1e30, float("nan"), float("inf"))]
            else:
                continue
            for value in values:
                shutil.copyfile(whole, path)
                patch(path, at, value)
                with self.subTest(key=name, value=value):
                    self.survives(STOKE.run("run", path, *RUN))
                    self.survives(STOKE.run("inspect", path))

    def test_tensors_that_lie(self):
        whole = synth("whole.gguf")
        path = STOKE.path("lies.gguf")
        chance = random.Random(7)
        for name, (_, _, entry) in Gguf(whole).tensors.items():
            first = entry + 8 + len(name)
            for place, value in ((first, 0), (first + 4, 0), (first + 4, 1 << 62), (first + 4, 65),
                                 (first + 4 * chance.randrange(8), chance.getrandbits(32))):
                shutil.copyfile(whole, path)
                patch(path, place, struct.pack("<Q" if value >> 32 else "<I", value))
                with self.subTest(tensor=name, place=place - entry, value=value):
                    self.survives(STOKE.run("run", path, *RUN))


class Flags(Hostile):
    def test_memory(self):
        model = synth("whole.gguf")
        for text in ("0", "-1", "-5G", "", "much", "1X", "1GG", "nan", "inf", "1e400", "99999999999T", "0x", " "):
            with self.subTest(memory=text):
                self.refused(STOKE.run("run", model, *RUN, "--memory", text), statuses=(2,))
        for text in ("1", "1K", "5M", "0.001G"):
            with self.subTest(memory=text):
                self.refused(STOKE.run("run", model, *RUN, "--memory", text), ["at least", "lower: -c"])
        for text in ("1000T", "1e12", "0x40000000"):
            with self.subTest(memory=text):
                self.assertEqual(STOKE.run("run", model, *RUN, "--memory", text).status, 0)

    def test_sizes(self):
        model = synth("whole.gguf")
        for flags in (["-c", "999999999999"], ["-c", str((1 << 63) - 1)], ["-c", "513"]):
            with self.subTest(flags=flags):
                self.refused(STOKE.run("run", model, *RUN, *flags), ["512"])
        for flags in (["-c", "0"], ["-c", "-4"], ["-b", "0"], ["-b", "99999999"], ["-t", "0"], ["-t", "99999"],
                      ["-n", "-7"], ["-n", "x"]):
            with self.subTest(flags=flags):
                self.refused(STOKE.run("run", model, *RUN[:2], *flags), statuses=(2,))
        self.assertEqual(STOKE.run("run", model, *RUN, "-t", "64", "-b", "65536", "-c", "1").status, 1)

    def test_context_that_no_machine_has(self):
        model = synth("long.gguf", *TINY[:-1], str(1 << 28))
        self.refused(STOKE.run("run", model, *RUN, "-c", str(1 << 28)), ["at least", "limit"])
        self.assertEqual(STOKE.run("run", model, *RUN).status, 0)

    def test_prompts(self):
        model = synth("whole.gguf")
        noise = bytes(random.Random(1).randrange(256) for _ in range(200))
        self.assertEqual(STOKE.run("run", model, *RUN[2:], stdin=noise).status, 0)
        self.refused(STOKE.run("run", model, *RUN[2:], stdin=b"long " * 1000000), ["512"])
        self.refused(STOKE.run("run", model, *RUN[2:], stdin=b""), ["empty"])
        self.refused(STOKE.run("run", model, *RUN[2:], "-f", STOKE.folder.name), [STOKE.folder.name])
        self.refused(STOKE.run("run", model, *RUN[2:], "-f", "/nowhere"), ["/nowhere"])

    def test_standard_output_that_is_full(self):
        model = synth("whole.gguf")
        with open("/dev/full", "wb") as full:
            for flags in ([], ["--json"]):
                done = subprocess.run([STOKE.program, "run", model, *RUN, *flags], stdout=full, stderr=subprocess.PIPE,
                                      timeout=300, check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(b"standard output", done.stderr)

    def test_few_threads(self):
        if sanitized():
            self.skipTest("the leak check wants a thread of its own")
        model, store = synth("whole.gguf"), synth("whole.stoke", *TINY_RELU)
        for path in (model, store):
            whole = STOKE.run("run", path, *RUN)
            for most in (1, 2, 3, 4, 5, 6, 8):
                try:
                    group = FewThreads(most)
                except OSError as error:
                    self.skipTest(f"cgroups of threads cannot be written here: {error}")
                with group, self.subTest(model=path, threads=most):
                    run = STOKE.run("run", path, *RUN, "-t", "4", group=group)
                    self.assertEqual(run.status, 0, run.err)
                    self.assertEqual(run.out, whole.out)

    def test_little_address_space(self):
        model, store = synth("whole.gguf"), synth("whole.stoke", *TINY_RELU)
        if sanitized():
            self.skipTest("a sanitizer wants all the address space there is")
        for path in (model, store):
            for mib in (20, 40, 60, 80, 120, 160, 200, 300, 400):
                bound = mib << 20
                limit = lambda b=bound: resource.setrlimit(resource.RLIMIT_AS, (b, b))  # noqa: E731
                done = subprocess.run([STOKE.program, "run", path, *RUN, "-t", "2"], preexec_fn=limit, timeout=300,
                                      capture_output=True, check=False)
                with self.subTest(model=path, mib=mib):
                    # 127: not even the system's loader has room
                    self.assertIn(done.returncode, (0, 1, 127), done.stderr)


RELU = ["--arch", "llama", "--layers", "6", "--dim", "512", "--ffn", "1536", "--heads", "8", "--kv-heads", "4",
        "--vocab", "2048", "-c", "512", "--ffn-act", "relu"]


class Converting(Hostile):
    def setUp(self):
        self.model = synth("relu.gguf", *RELU)
        self.reference = STOKE.path("reference.stoke")
        if not os.path.exists(self.reference):
            self.assertEqual(STOKE.run("convert", self.model, "-o", self.reference, "-q").status, 0)

    def same(self, path):
        with open(path, "rb") as a, open(self.reference, "rb") as b:
            self.assertEqual(a.read(), b.read())

    def start(self, output):
        return subprocess.Popen([STOKE.program, "convert", self.model, "-o", output, "-q"], stderr=subprocess.PIPE)

    def test_killed_at_any_time_goes_on(self):
        output = STOKE.path("killed.stoke")
        chance = random.Random(2)
        for _ in range(12):
            process = self.start(output)
            time.sleep(chance.random() * 0.4)
            process.kill()
            process.communicate()
            if os.path.exists(output):
                break
        self.assertEqual(STOKE.run("convert", self.model, "-o", output, "-q").status, 0)
        self.same(output)
        self.assertFalse(os.path.exists(output + ".part") or os.path.exists(output + ".journal"))

    def test_stopped_by_a_signal_says_so(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            output = STOKE.path(f"stopped{number}.stoke")
            process = self.start(output)
            while process.poll() is None and not os.path.exists(output + ".part"):
                time.sleep(0.001)
            process.send_signal(number)
            _, said = process.communicate()
            self.assertIn(process.returncode, (0, 128 + number), said)
            if process.returncode != 0:
                self.assertIn(b"goes on from there", said)
            self.assertEqual(STOKE.run("convert", self.model, "-o", output, "-q").status, 0)
            self.same(output)

    def test_several_to_one_output(self):
        for turn in range(6):
            output = STOKE.path(f"crowd{turn}.stoke")
            crowd = [self.start(output) for _ in range(4)]
            said = [process.communicate()[1] for process in crowd]
            done = [process.returncode for process in crowd]
            self.assertIn(0, done, said)
            self.assertTrue(all(status in (0, 1) for status in done), said)
            for status, text in zip(done, said):
                self.assertEqual(status == 1, b"another process" in text, text)
            self.same(output)
            self.assertFalse(os.path.exists(output + ".part"))

    def test_outputs_that_cannot_be(self):
        folder, fifo = STOKE.path("folder.stoke"), STOKE.path("fifo.stoke")
        os.makedirs(folder, exist_ok=True)
        os.mkfifo(fifo)
        for output in (folder, fifo, "/nowhere/out.stoke", "/proc/out.stoke", "/dev/full.stoke/x.stoke"):
            with self.subTest(output=output):
                self.refused(STOKE.run("convert", self.model, "-o", output), [output])
                self.refused(STOKE.run("synth", *TINY_RELU, "-o", output), [output])
        self.assertFalse(os.path.exists(folder + ".part"))
        self.refused(STOKE.run("convert", self.reference, "-o", self.reference), ["reference.stoke"])
        self.assertEqual(STOKE.run("inspect", self.reference, "--verify").status, 0)
        for flags in (["--down", "q9"], ["--quant", "nope"]):
            with self.subTest(flags=flags):
                self.refused(STOKE.run("convert", self.model, "-o", STOKE.path("bad.stoke"), *flags), statuses=(1, 2))
        self.assertFalse(os.path.exists(STOKE.path("bad.stoke")))

    def test_files_that_may_not_grow(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
        for command in (["convert", self.model, "-o", STOKE.path("grow.stoke")],
                        ["synth", *RELU, "-o", STOKE.path("grow.gguf")]):
            done = subprocess.run([STOKE.program, *command], preexec_fn=limit, capture_output=True, timeout=300,
                                  check=False)
            self.assertEqual(done.returncode, 1, (command[0], done.stderr))
            self.assertIn(b"grow.", done.stderr)
        self.assertFalse(os.path.exists(STOKE.path("grow.stoke")) or os.path.exists(STOKE.path("grow.gguf")))


class FullDisk(Hostile):
    """On a small tmpfs of our own."""

    def setUp(self):
        self.place = STOKE.path("small")
        os.makedirs(self.place, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", self.place], capture_output=True,
                              check=False)
        if done.returncode != 0:
            self.skipTest("a tmpfs cannot be mounted here: " + done.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", self.place], check=True)

    def test_too_little_room_is_said_first(self):
        model = synth("relu.gguf", *RELU)
        for command in (["convert", model], ["synth", *RELU]):
            output = os.path.join(self.place, "out.stoke")
            self.refused(STOKE.run(*command, "-o", output), ["out.stoke", "MiB are free", "make room"])
            self.assertEqual(os.listdir(self.place), [])

    def test_room_that_goes_away(self):
        model = synth("middle.gguf", *RELU[:3], "2", *RELU[4:])
        output = os.path.join(self.place, "out.stoke")
        subprocess.run(["mount", "-o", "remount,size=64m", self.place], check=True)
        with open(os.path.join(self.place, "filler"), "wb") as filler:
            process = subprocess.Popen([STOKE.program, "convert", model, "-o", output], stderr=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL)
            while process.poll() is None and not os.path.exists(output + ".part"):
                time.sleep(0.001)
            try:
                while True:
                    filler.write(b"x" * (1 << 20))
                    filler.flush()
            except OSError:
                pass
            said = process.communicate()[1].decode()
        self.assertIn(process.returncode, (0, 1), said)
        if process.returncode == 1:
            self.assertIn("out.stoke", said)
            self.assertFalse(os.path.exists(output))
        os.remove(os.path.join(self.place, "filler"))
        self.assertEqual(STOKE.run("convert", model, "-o", output, "-q").status, 0)
        self.assertEqual(STOKE.run("inspect", output, "--verify").status, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
