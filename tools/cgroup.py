"""A memory cgroup, version 1 or 2, for what tests and measurements run under a limit.

Only the standard library. Needs a cgroup tree that we may write: root, or a container that was given its own.
"""
import os
import time


class Group:
    """A memory cgroup with a limit in bytes (0: none); use as a context. Raises OSError where we may not make one."""

    count = 0

    def __init__(self, limit):
        self.version = 1 if os.path.isdir("/sys/fs/cgroup/memory") else 2
        parent = "/sys/fs/cgroup/memory" if self.version == 1 else "/sys/fs/cgroup"
        Group.count += 1
        self.folder = os.path.join(parent, f"stoke-{os.getpid()}-{Group.count}")
        os.mkdir(self.folder)
        try:
            if limit:
                self.write("memory.limit_in_bytes" if self.version == 1 else "memory.max", str(limit))
        except OSError:
            os.rmdir(self.folder)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(200):  # a process that has just ended may still be counted
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                time.sleep(0.05)

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding="ascii") as file:
            return file.read()

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
            file.write(text)

    def enter(self):
        """Moves this process there; the preexec_fn of what is to run in it."""
        self.write("cgroup.procs", str(os.getpid()))

    def number(self, name, key):
        for line in self.read(name).splitlines():
            words = line.split()
            if words[0] == key:
                return int(words[1])
        return 0

    def kills(self):
        return self.number("memory.oom_control" if self.version == 1 else "memory.events", "oom_kill")

    def cached(self):
        """Page cache charged to the group, shared memory and tmpfs included."""
        return self.number("memory.stat", "total_cache" if self.version == 1 else "file")

    def peak(self):
        """The most that was charged to the group; 0 where the kernel does not tell."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        return int(self.read(name)) if os.path.exists(os.path.join(self.folder, name)) else 0
