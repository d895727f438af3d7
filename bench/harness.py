"""What compare.py, streaming.py and ablation.py measure with: the two programs, a model file's sizes, the page cache, a
memory limit, and a process's first byte.

Only the standard library. A program that fails raises Failed, with its command and the end of what it said.
"""
import ctypes
import json
import mmap
import os
import statistics
import struct
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from cgroup import Group  # noqa: E402


class Failed(Exception):
    """A program ended with a status that is not 0."""


def run(command):
    """Standard output of a command, as text."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace")[-800:]
        raise Failed(f"status {done.returncode} from {' '.join(map(str, command))}\n{said}")
    return done.stdout.decode(errors="replace")


def median(values):
    """The median; None where there is nothing."""
    return statistics.median(values) if values else None


class Stoke:
    """The program under test. `threads` 0 leaves the choice to it."""

    def __init__(self, path, threads, isa=None):
        self.path = path
        self.threads = ["-t", str(threads)] if threads else []
        self.flags = self.threads + (["--isa", isa] if isa else [])

    def json(self, *arguments):
        return json.loads(run([self.path, *arguments, "--json"]))

    def profile(self):
        """The machine as it is now: DRAM read rate of all threads, and the int8 peak by kind of instruction."""
        report = json.loads(run([self.path, "profile", "--json", "--refresh", "--no-disk", "--quiet",
                                 *self.threads]))
        return {"dram_read_bytes_per_s": report["dram_read"]["all_threads_bytes_per_s"],
                "int8_ops_per_s": {p["name"]: p["all_threads_ops_per_s"] for p in report["peaks"]
                                   if p["kind"] == "int8"}}

    def rates(self, model, prompt, generate, extra=()):
        """(prefill, decode) in tokens a second, of one run. What is 0 tokens long is not measured."""
        report = self.json("bench", model, "--prompt", str(prompt), "--generate", str(generate), "--repeat", "1",
                           *self.flags, *extra)
        return report["prefill_tokens_per_s"], report["decode_tokens_per_s"]

    def first_token(self, model, prompt):
        return first_byte([self.path, "run", model, "-p", prompt, "-n", "1", "--temp", "0", "--ignore-eos",
                           *self.flags])

    def resident(self, model):
        report = self.json("run", model, "-p", "Hello", "-n", "1", "--temp", "0", "--ignore-eos", *self.flags)
        return report["stats"]["peak_rss_bytes"]

    def synth(self, shape, out, kind, layers=0):
        cut = ["--layers", str(layers)] if layers else []
        run([self.path, "synth", shape, "--type", kind, "-o", out, *cut])


class Peer:
    """llama.cpp, from the folder of its binaries."""

    def __init__(self, folder, threads):
        self.folder = folder
        self.flags = ["-t", str(threads)] if threads else []

    def rates(self, model, prompt, generate, depth=0):
        command = [os.path.join(self.folder, "llama-bench"), "-m", model, "-r", "1", "-o", "json", *self.flags,
                   "-p", str(prompt), "-n", str(generate), "-d", str(depth)]
        prefill = decode = 0.0
        for row in json.loads(run(command)):
            if row["n_prompt"]:
                prefill = row["avg_ts"]
            elif row["n_gen"]:
                decode = row["avg_ts"]
        return prefill, decode

    def first_token(self, model, prompt):
        return first_byte([os.path.join(self.folder, "llama-completion"), "-m", model, "-p", prompt, "-n", "1",
                           "--temp", "0", "--ignore-eos", "-no-cnv", "--no-display-prompt", "--no-warmup",
                           "-c", "4096", *self.flags])


def first_byte(command):
    """(seconds until the first byte on standard output or the end, peak resident bytes, mapped files included)."""
    start = time.monotonic()
    with open(os.devnull, "r+b") as null:
        try:
            process = subprocess.Popen([str(c) for c in command], stdin=null, stdout=subprocess.PIPE, stderr=null)
        except FileNotFoundError as missing:
            raise Failed(f"{command[0]} is not there") from missing
        process.stdout.read(1)
        elapsed = time.monotonic() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
    if process.returncode != 0:
        raise Failed(f"status {process.returncode} from {' '.join(map(str, command))}")
    return elapsed, usage.ru_maxrss * 1024


MAP_WINDOW = 1 << 30


def warm(path):
    """Reads the file once, so that it is in the page cache. Returns the share that is."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
        return cached_share(file.fileno())


def chill(path):
    """Drops the file from the page cache. Returns the share that stayed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return cached_share(descriptor)
    finally:
        os.close(descriptor)


def cached_share(descriptor):
    """The share of a file's pages that the page cache holds. Window by window: a mapping that may be written, which
    ctypes wants, counts as memory promised, and a model may be larger than that."""
    size = os.fstat(descriptor).st_size
    present = sum(cached_pages(descriptor, at, min(MAP_WINDOW, size - at)) for at in range(0, size, MAP_WINDOW))
    return min(1.0, present * mmap.PAGESIZE / size) if size else 0.0


def cached_pages(descriptor, offset, size):
    with mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset) as view:
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        present = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(view)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(start)),
                                                           ctypes.c_size_t(size), present)
        del start
        return pages if failed else sum(b & 1 for b in bytes(present))


def limited(command, limit, seconds=600):
    """Standard output of a command under a memory limit (0: none), and the peak of what its cgroup was charged. Raises
    Failed, for a killed command too."""
    with Group(limit) as group:
        try:
            done = subprocess.run([str(c) for c in command], capture_output=True, check=False, timeout=seconds,
                                  stdin=subprocess.DEVNULL, preexec_fn=group.enter)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"no end within {seconds} s: {' '.join(map(str, command))}") from error
        if done.returncode != 0:
            raise Failed(f"status {done.returncode} from {' '.join(map(str, command))}: "
                         f"{done.stderr.decode(errors='replace')[-300:]}")
        return done.stdout.decode(errors="replace"), group.peak()


class GgufSizes:
    """What a decode step reads and a prompt's token multiplies, from a GGUF file's tensor table.

    `bytes`: all but the embedding, of which one row is read, unless it is the head, too. `weights`: elements of the
    layers' matrices; the head is left out, since of a prompt only the last token needs it. `types`: the number of each
    tensor's element type, by name.
    """

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path):
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            self.file = file
            if file.read(4) != b"GGUF":
                raise Failed(f"{path} is not a GGUF file")
            self.take("I")
            tensors, keys = self.take("Q"), self.take("Q")
            alignment = 32
            for _ in range(keys):
                name, kind = self.text(), self.take("I")
                value = self.value(kind)
                alignment = value if name == "general.alignment" else alignment
            table = [self.tensor() for _ in range(tensors)]
            data = (file.tell() + alignment - 1) // alignment * alignment
        self.types = {name: kind for name, _, kind, _ in table}
        starts = sorted(offset for _, _, _, offset in table) + [size - data]
        tied = "output.weight" not in self.types
        self.bytes = self.weights = 0
        for name, elements, _, offset in table:
            if tied or name != "token_embd.weight":
                self.bytes += starts[starts.index(offset) + 1] - offset
            if name.startswith("blk.") and name.endswith(".weight") and "norm" not in name:
                self.weights += elements

    def take(self, code):
        return struct.unpack("<" + code, self.file.read(struct.calcsize("<" + code)))[0]

    def text(self):
        return self.file.read(self.take("Q")).decode(errors="replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.take(self.SCALARS[kind])
        kind, count = self.take("I"), self.take("Q")
        if kind in self.SCALARS:
            self.file.seek(count * struct.calcsize("<" + self.SCALARS[kind]), os.SEEK_CUR)
        else:
            for _ in range(count):
                self.value(kind)
        return None

    def tensor(self):
        name = self.text()
        elements = 1
        for _ in range(self.take("I")):
            elements *= self.take("Q")
        return name, elements, self.take("I"), self.take("Q")
