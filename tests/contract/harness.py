"""What the contract tests share: memory cgroups, watched runs of stoke, and the models they run.

A watched run samples RssAnon of the process while it lives.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
from cgroup import Group  # noqa: E402

MIB = 1 << 20
MARGIN = 48 * MIB
# A hang is what does not end in this time; nothing else is judged by the clock.
HANG_S = 900


class FewThreads:
    """A cgroup that allows so many threads in all; as Group otherwise."""

    def __init__(self, most):
        v1 = os.path.isdir("/sys/fs/cgroup/pids")
        self.folder = f"/sys/fs/cgroup/{'pids/' if v1 else ''}stoke-contract-threads-{os.getpid()}"
        os.mkdir(self.folder)
        self.write("pids.max", str(most))

    __enter__, __exit__, write, enter = Group.__enter__, Group.__exit__, Group.write, Group.enter


def cgroup_refusal():
    """Why no cgroup can be made here, or an empty text."""
    try:
        with Group(64 * MIB):
            return ""
    except OSError as error:
        return f"memory cgroups cannot be written here: {error}"


class Watched:
    """A process whose anonymous memory is sampled while it lives."""

    def __init__(self, command, group=None, stdin=b"", env=None):
        self.peak_anonymous = 0
        self.command = [str(part) for part in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, bufsize=0, preexec_fn=group.enter if group else None,
                                        env={**os.environ, **(env or {})})
        self.stdin = stdin
        self.sampler = threading.Thread(target=self.sample, daemon=True)
        self.sampler.start()

    def sample(self):
        while self.process.poll() is None:
            try:
                with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
                    for line in file:
                        if line.startswith("RssAnon:"):
                            self.peak_anonymous = max(self.peak_anonymous, int(line.split()[1]) * 1024)
                            break
            except OSError:
                return
            time.sleep(0.003)

    def wait(self):
        """Itself, with `out`, `err` (text) and `status`; a hang ends it and raises."""
        try:
            out, err = self.process.communicate(self.stdin or None, timeout=HANG_S)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end within {HANG_S} s: {' '.join(self.command)}") from error
        self.sampler.join()
        self.out, self.err = out.decode(errors="replace"), err.decode(errors="replace")
        self.status = self.process.returncode
        return self

    def json(self):
        assert self.status == 0, (self.command, self.status, self.err)
        return json.loads(self.out)


class Stoke:
    """The program under test and a folder of models made for it."""

    DENSE = ["--dim", "768", "--ffn", "2048", "--heads", "12", "--kv-heads", "4", "--vocab", "4096", "-c", "4096"]
    SHAPES = {
        "dense.gguf": ["--arch", "llama", "--layers", "10", *DENSE],
        "experts.gguf": ["--arch", "qwen3moe", "--layers", "6", "--dim", "512", "--ffn", "384", "--heads", "8",
                         "--kv-heads", "4", "--vocab", "4096", "-c", "4096", "--experts", "16", "--experts-used", "4"],
        "relu.stoke": ["--arch", "llama", "--layers", "10", *DENSE, "--ffn-act", "relu"],
        "relu_experts.stoke": ["--arch", "qwen3moe", "--layers", "6", "--dim", "512", "--ffn", "384", "--heads", "8",
                               "--kv-heads", "4", "--vocab", "4096", "-c", "4096", "--experts", "16",
                               "--experts-used", "4", "--ffn-act", "drelu"],
    }

    def __init__(self, program):
        self.program = os.path.abspath(program)
        self.folder = tempfile.TemporaryDirectory(prefix="stoke_contract_")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def model(self, name):
        """A model by its name in SHAPES, written when first asked for, and not in the page cache."""
        path = self.path(name)
        if not os.path.exists(path):
            done = self.run("synth", *self.SHAPES[name], "--type", "q8_0", "-o", path, "-q")
            assert done.status == 0, done.err
        forget(path)
        return path

    def start(self, *arguments, group=None, stdin=b"", env=None):
        return Watched([self.program, *arguments], group, stdin, env)

    def run(self, *arguments, group=None, stdin=b"", env=None):
        return self.start(*arguments, group=group, stdin=stdin, env=env).wait()


def forget(path):
    """Drops a file's pages from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
