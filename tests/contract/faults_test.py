#!/usr/bin/env python3
"""Disks that fail, through the real program: right tokens, or one line that says what and where; never a hang.

usage: faults_test.py STOKE FAULTY_DISK     FAULTY_DISK: the library of faulty_disk.c, which stands between
"""
import os
import random
import shutil
import signal
import sys
import unittest

from gguf_file import Gguf, flip, patch
from harness import MARGIN, MIB, Group, Stoke, cgroup_refusal, forget

STOKE = Stoke(sys.argv[1])
FAULTY_DISK = os.path.abspath(sys.argv[2])
RUN = ["-p", "The quick brown fox jumps over the lazy dog", "-n", "12", "--temp", "0", "--ignore-eos", "-c", "256"]
REFUSAL = cgroup_refusal()


def faults(model, **wanted):
    """The environment that makes reads of this model fail so."""
    names = {"FAULTY_" + name.upper(): str(value) for name, value in wanted.items()}
    return {"LD_PRELOAD": FAULTY_DISK, "FAULTY_NAME": os.path.basename(model), **names}


class Faults(unittest.TestCase):
    def setUp(self):
        self.whole = {}
        self.least = {}
        for name in ("dense.gguf", "relu.stoke"):
            model = STOKE.model(name)
            self.whole[name] = self.answers(name)
            self.least[name] = self.inspected(model)["memory_min_bytes"] + 2 * MIB

    answered = {}

    def answers(self, name):
        """Text and hash of the model in memory."""
        if name not in self.answered:
            self.answered[name] = STOKE.run("run", STOKE.model(name), *RUN, "--json", "-q").json()
        return self.answered[name]

    inspections = {}

    def inspected(self, model):
        if model not in self.inspections:
            self.inspections[model] = STOKE.run("inspect", model, "-c", "256", "--json").json()
        return self.inspections[model]

    def ways(self, name):
        """Flags for a run all in memory and one that streams."""
        return [[], ["--memory", self.least[name]]]

    def copy(self, name):
        path = STOKE.path("damaged_" + name)
        shutil.copyfile(STOKE.model(name), path)
        forget(path)
        return path

    def right(self, name, model, flags, env=None):
        run = STOKE.run("run", model, *RUN, "--json", "-q", *flags, env=env)
        found = run.json()
        self.assertEqual(found["logits_hash"], self.whole[name]["logits_hash"], (name, flags))
        return found

    def refused(self, model, flags, says, env=None):
        run = STOKE.run("run", model, *RUN, "-q", *flags, env=env)
        self.assertEqual(run.status, 1, (flags, run.err))
        self.assertEqual(len(run.err.splitlines()), 1, run.err)
        for part in [os.path.basename(model), *says]:
            self.assertIn(part, run.err)

    def test_damaged_record_is_named(self):
        model = self.copy("relu.stoke")
        offset = Gguf(model).record(3, 77)
        flip(model, offset + 5)
        for flags in self.ways("relu.stoke"):
            self.refused(model, flags, ["layer 3, neuron 77", f"offset {offset}", "checksum", "twice"])

    def test_bit_that_flips_once_is_read_again(self):
        model = STOKE.model("relu.stoke")
        offset = Gguf(model).record(2, 9)
        for flags in self.ways("relu.stoke"):
            self.right("relu.stoke", model, flags, faults(model, flip=offset + 1, times=1))
            self.refused(model, flags, ["layer 2, neuron 9", "twice"], faults(model, flip=offset + 1))

    def test_read_that_fails_once_is_done_again(self):
        store, dense = STOKE.model("relu.stoke"), STOKE.model("dense.gguf")
        record = Gguf(store).record(4, 100)
        tensor = Gguf(dense).tensors["blk.5.ffn_up.weight"][1] + 5000
        for flags in self.ways("relu.stoke"):
            self.right("relu.stoke", store, flags, faults(store, eio=record, times=1))
            self.refused(store, flags, ["error"], faults(store, eio=record))
        for flags in self.ways("dense.gguf"):
            self.right("dense.gguf", dense, flags, faults(dense, eio=tensor, times=1))
            self.refused(dense, flags, ["blk.5.ffn_up.weight", "error"], faults(dense, eio=tensor))

    def test_short_and_interrupted_reads_change_nothing(self):
        for name in self.whole:
            model = STOKE.model(name)
            for flags in self.ways(name):
                self.right(name, model, flags, faults(model, short=1))
                self.right(name, model, flags, faults(model, short=1, no_direct=1))

    def test_damaged_header_and_checksums_are_refused(self):
        model = self.copy("relu.stoke")
        parts = Gguf(model)
        chance = random.Random(3)
        places = [chance.randrange(parts.header_end) for _ in range(24)]
        places += [parts.tensors["stoke." + part][1] + 2 for part in ("record_checksums", "matrix_checksums", "seal")]
        for place in places:
            with self.subTest(place=place):
                flip(model, place)
                self.refused(model, [], [])
                flip(model, place)
        self.right("relu.stoke", model, [])

    def test_damaged_matrix_of_a_store_is_refused(self):
        model = self.copy("relu.stoke")
        for tensor in ("blk.1.attn_q.weight", "blk.6.ffn_gate.weight", "output.weight", "blk.2.ffn_norm.weight"):
            place = Gguf(model).tensors[tensor][1] + 1001
            flip(model, place)
            for flags in self.ways("relu.stoke"):
                with self.subTest(tensor=tensor, flags=flags):
                    self.refused(model, flags, [tensor, "checksum"])
            flip(model, place)

    def test_file_cut_short_while_open(self):
        for name in self.whole:
            model = self.copy(name)
            arguments = [*RUN[:2], "-n", "2000", *RUN[4:6], "-c", "4096"]
            least = STOKE.run("inspect", model, "-c", "4096", "--json").json()["memory_min_bytes"]
            run = STOKE.start("run", model, *arguments, "--memory", least)
            run.process.stdout.read(1)
            os.truncate(model, os.path.getsize(model) // 3)
            run.wait()
            self.assertEqual(run.status, 1, (name, run.err))
            self.assertIn("damaged_" + name, run.err)
            self.assertIn("ends", run.err)

    def test_file_replaced_while_open_is_still_read(self):
        for name in self.whole:
            model = self.copy(name)
            run = STOKE.start("run", model, *RUN, "-q", "--memory", self.least[name], env=faults(model, delay_us=300))
            first = run.process.stdout.read(1)
            with open(model + ".new", "wb") as file:
                file.write(b"something else entirely" * 1000)
            os.replace(model + ".new", model)
            run.wait()
            self.assertEqual(run.status, 0, run.err)
            self.assertEqual(first.decode() + run.out, self.whole[name]["text"])

    def test_store_written_over_while_open_is_noticed(self):
        model = self.copy("relu.stoke")
        parts = Gguf(model)
        run = STOKE.start("run", model, *RUN[:2], "-n", "200", *RUN[4:], "-q", "--memory", self.least["relu.stoke"],
                          env=faults(model, delay_us=300))
        run.process.stdout.read(1)
        for layer in range(10):
            shape, offset, _ = parts.tensors[f"blk.{layer}.ffn_records"]
            patch(model, offset, bytes(shape[0] * shape[1]))
        run.wait()
        self.assertEqual(run.status, 1, run.err)
        self.assertIn("checksum", run.err)

    def test_slow_disk_changes_nothing_and_can_be_left(self):
        for name in self.whole:
            model = STOKE.model(name)
            self.right(name, model, ["--memory", self.least[name]], faults(model, delay_us=3000))
            count = STOKE.path("count")
            run = STOKE.start("run", model, *RUN, "--memory", self.least[name],
                              env=faults(model, delay_us=200000, count=count))
            self.assertIn(b"bigger than its memory", run.process.stderr.readline())
            run.process.send_signal(signal.SIGTERM)
            run.wait()
            self.assertEqual(run.status, 143, run.err)
            with open(count, encoding="ascii") as file:
                self.assertLess(int(file.read()), 400)

    @unittest.skipIf(REFUSAL, REFUSAL)
    def test_without_direct_reads_the_page_cache_is_left_as_it_was(self):
        for name in self.whole:
            model = STOKE.model(name)
            for flags in self.ways(name):
                forget(model)
                with self.subTest(model=name, flags=flags), Group(self.least[name] + 3 * MARGIN) as group:
                    env = faults(model, no_direct=1)
                    run = STOKE.run("run", model, *RUN, "--json", *flags, group=group, env=env)
                    found = run.json()
                    self.assertEqual(found["logits_hash"], self.whole[name]["logits_hash"])
                    if flags:
                        self.assertIn("through the page cache", run.err)
                        self.assertLess(group.cached(), 8 * MIB)
                        self.assertLess(found["stats"]["page_cache_bytes"], 4 * MIB)

    @unittest.skipUnless(os.path.isdir("/dev/shm"), "no tmpfs at /dev/shm")
    def test_model_on_tmpfs(self):
        for name in self.whole:
            path = f"/dev/shm/stoke_contract_{os.getpid()}_{name}"
            shutil.copyfile(STOKE.model(name), path)
            try:
                for flags in self.ways(name):
                    self.right(name, path, flags)
            finally:
                os.remove(path)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
