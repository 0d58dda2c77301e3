"""A sync or a write that fails once, at the N-th call of the real walsvc under load (strace injects it, in its first life
only): the process ends, nobody was acknowledged what isn't there afterwards, recovery writes the doubtful tail again and
syncs it before it serves, and an append that runs through it lands each line exactly once."""
import os
import re
import shutil
import subprocess
import unittest

from first_life import FirstLife, Lines, wait_restarted
from shanghai import wait_for

IS_LONG = os.environ.get("SHANGHAI_LONG") == "1"
LINES = 20000
FATAL = "ending at once"


class Injected:
    """strace on a process that runs, failing one system call of it."""

    def __init__(self, node, call, when, path=None):
        self.err_path = os.path.join(node.dir, "strace.err")
        self.out_path = os.path.join(node.dir, "strace.out")
        only = ["-P", path] if path else []
        with open(self.err_path, "wb") as err:
            self.process = subprocess.Popen(
                ["strace", "-f", "-y", "-p", str(node.pid("walsvc")), "-o", self.out_path, *only, "-e", f"trace={call}",
                 "-e", f"inject={call}:error=EIO:when={when}"], stdin=subprocess.DEVNULL, stderr=err)
        wait_for(lambda: "attached" in self.read(self.err_path), "strace to be attached")

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def end(self):
        """How many calls were failed."""
        if self.process.poll() is None and "INJECTED" not in self.read(self.out_path):
            self.process.terminate()
        self.process.wait(30)
        return self.read(self.out_path).count("(INJECTED)")

    def hit_segment(self):
        """Not the mark, which is written when the load pauses: nothing is in doubt then. A call may take two lines."""
        begun = {}
        for line in self.read(self.out_path).splitlines():
            thread = line.split()[0]
            begun[thread] = line if "resumed>" not in line else begun.get(thread, "")
            if "(INJECTED)" in line:
                return ".seg>" in begun[thread]
        return False


class Eio(unittest.TestCase):
    faults = 0

    @classmethod
    def tearDownClass(cls):
        print(f"\ncount: injected faults {cls.faults}", flush=True)

    def setUp(self):
        if shutil.which("strace") is None:
            self.skipTest("no strace")

    def check_rewritten(self, trace, log_dir):
        """Of the life after the fault: the tail is written and synced, then the folder, before the first group."""
        calls = re.findall(r"(pwritev|pwrite64|fsync|fdatasync)\(\d+<([^>]*)>", Injected.read(trace))
        segment = [name for name, path in calls if path.startswith(log_dir) and path.endswith(".seg")]
        self.assertIn(segment[0], ("pwritev", "pwrite64"), calls[:20])
        self.assertIn("fsync", segment, calls[:20])
        group = segment.index("fdatasync") if "fdatasync" in segment else len(segment)
        self.assertLess(segment.index("fsync"), group, calls[:20])

    def run_through(self, call, when, lines=LINES, settings="", path=None, idle=False):
        with FirstLife(settings) as node:
            trace = os.path.join(node.dir, "second")
            node.start()
            node.arm(["strace", "-D", "-f", "-q", "-y", "-o", trace, "-e", "trace=pwritev,pwrite64,fsync,fdatasync"])
            first = node.pid("walsvc")
            injected = Injected(node, call, when, path and os.path.normpath(os.path.join(node.log_dir(), path)))
            load = Lines(node, lines, pad=100 if not settings else 1000)
            if idle:
                load.thread.join(180)
            wait_restarted(node)
            load.finish()
            self.assertEqual(injected.end(), 1)
            self.assertNotEqual(node.pid("walsvc"), first)
            self.assertEqual(node.restarts(), 1)
            self.assertTrue(node.log_lines("Input/output error"), node.log_tail())
            if call == "fdatasync" and injected.hit_segment():
                self.assertTrue(node.log_lines(FATAL), node.log_tail())
                self.check_rewritten(trace, node.log_dir())
        Eio.faults += 1

    def test_the_nth_fdatasync_fails(self):
        for when in range(1, 21) if IS_LONG else (1, 2, 5, 13):
            with self.subTest(when=when):
                self.run_through("fdatasync", when)

    def test_the_nth_write_fails(self):
        for when in (1, 2, 3, 7, 12) if IS_LONG else (1, 7):
            with self.subTest(when=when):
                self.run_through("pwritev", when)

    def test_a_sync_of_the_mark_fails(self):
        self.run_through("fdatasync", 1, lines=200, path="mark", idle=True)

    def test_a_sync_of_the_preparer_fails(self):
        """1: of the former segment, which is sealed; 2: of the next one, which is made."""
        for when in (1, 2):
            with self.subTest(when=when):
                self.run_through("fsync", when, lines=16000, settings="wal:\n  segment_size: 4MiB")

    def test_a_sync_of_the_folder_in_a_roll_fails(self):
        self.run_through("fsync", 1, lines=16000, settings="wal:\n  segment_size: 4MiB", path=".")


if __name__ == "__main__":
    unittest.main()
