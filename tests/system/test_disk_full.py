"""A disk of 8 MiB, filled until appends are refused: everything else works on, and appends resume by themselves."""
import ctypes
import errno
import json
import os
import signal
import subprocess
import threading
import unittest

from shanghai import SERVICES, Node, wait_for

DISK = 8 << 20
BALLAST = 3 << 19
LINE = 100
SEGMENT = 1 << 20
PROBE = (SEGMENT >> 2) - 144
ROUNDS = 3
SETTINGS = "wal: {segment_size: 1MiB, disk_reserve: 64KiB}"
# Who stops within half a minute stops cleanly.
CHILDREN = ", ".join(f"{{service: {name}, shutdown_timeout: 30s}}" for name in SERVICES)
SUPERVISOR = f"supervisor: {{intensity: 1000, period: 60s, backoff: false, children: [{CHILDREN}]}}"
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 16384, 1 << 18, 2
libc = ctypes.CDLL(None, use_errno=True)


def why_no_mounts():
    """Takes a mount namespace of this process's own, so that nothing mounted here outlives it; None, or why not."""
    if os.geteuid() != 0:
        return "needs root, for a small file system of its own"
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    return None


class SmallDisk(Node):
    def __init__(self):
        super().__init__(SETTINGS, SUPERVISOR)
        if libc.mount(b"tmpfs", self.data.encode(), b"tmpfs", 0, f"size={DISK}".encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def close(self):
        try:
            super().close()
        finally:
            libc.umount2(self.data.encode(), MNT_DETACH)
            os.rmdir(self.data)
            os.rmdir(self.dir)

    def info(self):
        return self.json("log", "info")

    def left_in_segment(self):
        """Bytes that the last segment still takes."""
        info = self.info()
        return info["segments"][-1]["position"] + SEGMENT - info["durable_end"]

    def room(self):
        about = os.statvfs(self.data)
        return about.f_bavail * about.f_frsize


class Writer:
    """`append -` with lines 1, 2, 3, ... as long as it takes them, beside the test."""

    def __init__(self, node):
        self.process = subprocess.Popen(
            node.ctl_command("--format", "json", "--timeout", "600s", "append", "--batch", "20", "-"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.sent = 0
        self.stop = False
        self.thread = threading.Thread(target=self.feed, daemon=True)
        self.thread.start()

    def feed(self):
        try:
            while not self.stop:
                self.process.stdin.write(b"".join(b"%0*d\n" % (LINE, self.sent + i) for i in range(1, 101)))
                self.process.stdin.flush()
                self.sent += 100
        except BrokenPipeError:
            pass  # it has ended: the test says with what


class DiskFull(unittest.TestCase):
    def setUp(self):
        reason = why_no_mounts()
        if reason is not None:
            print(f"skipped: {reason}", flush=True)
            self.skipTest(reason)
        self.read = 0  # lines that were read back, each once and in order
        self.node = SmallDisk()
        self.addCleanup(self.node.close)
        self.node.start()

    def read_on(self):
        """Reads what is new; nothing may be missing or there twice."""
        if self.node.json("status")["durable_lsn"] <= self.read:
            return
        got = self.node.ctl("--format", "raw", "read", "--from", str(self.read + 1)).stdout
        count = len(got) // (LINE + 1)
        self.assertEqual(got, b"".join(b"%0*d\n" % (LINE, self.read + i) for i in range(1, count + 1)))
        self.read += count

    def is_refused(self):
        """A probe as large as an append can be: it fits nowhere where the writer's do not."""
        out = self.node.ctl("--timeout", "1s", "append", "-", input=b"p" * PROBE, check=False)
        self.assertNotEqual(out.returncode, 0, "a full disk took an append")
        return b"disk_full" in out.stderr

    def wait_full(self):
        """Until the next segment cannot be made, and the last one takes nothing more: no probe before it can't fit."""
        wait_for(lambda: self.node.info()["disk"]["next_segment"] == "no room for it", "a full disk", 60)
        wait_for(lambda: self.node.left_in_segment() < PROBE // 2, "the last segment to be filled", 60)

        def is_still():
            before = self.node.json("status")["durable_lsn"]
            return self.is_refused() and self.node.json("status")["durable_lsn"] == before
        wait_for(is_still, "appends to be refused", 60)

    def status_when_full(self):
        """Of a disk that takes nothing more, all of which was read; None: it did."""
        self.wait_full()
        self.read_on()
        status = self.node.json("status")
        return status if status["durable_lsn"] == self.read and status["writes"] != "taken" else None

    def check_rest_works(self):
        """Again while the writer, which may have been held up, still finds a place for some lines."""
        status = wait_for(self.status_when_full, "a disk that stays full", 120)
        self.assertEqual((status["writable"], status["writes"], status["health"]), (False, "disk_full", "unavailable"))
        self.assertIn("n1 takes no writes: its disk is full", status["reasons"])
        self.assertEqual(self.node.ctl("log", "verify", "--data", self.node.data).returncode, 0)
        self.assertGreaterEqual(self.node.room(), 64 << 10)

    def wait_resumed(self):
        before = self.read
        wait_for(lambda: self.node.json("status")["durable_lsn"] > before, "appends to resume", 60)

    def make_room(self, least=1):
        segments = self.node.info()["segments"]
        done = self.node.json("log", "trim", "--before", str(segments[-2]["base_lsn"]))
        self.assertGreaterEqual(done["segments"], least)

    def ballast(self):
        """A file that is in the way."""
        path = os.path.join(self.node.data, "ballast")
        with open(path, "wb") as file:
            file.write(bytes(BALLAST))
        return path

    def test_full_and_resumed_by_a_trim_and_by_a_deleted_file(self):
        writer = Writer(self.node)
        try:
            for _ in range(ROUNDS):
                self.check_rest_works()
                os.kill(writer.process.pid, signal.SIGSTOP)  # or it could be faster than the ballast
                self.make_room(least=3)
                path = self.ballast()
                os.kill(writer.process.pid, signal.SIGCONT)
                self.wait_resumed()
                self.check_rest_works()
                os.unlink(path)
                self.wait_resumed()
            self.wait_full()
            self.node.kill("walsvc")  # with a full disk it starts all the same
            self.node.wait_ready()
            self.check_rest_works()  # walsvc knows again that it is full once it has refused something
            done = self.finish(writer)
        finally:
            writer.stop = True
            writer.process.kill()
            writer.process.wait(10)
            for pipe in (writer.process.stdin, writer.process.stdout, writer.process.stderr):
                pipe.close()
        self.read_on()
        self.assertEqual(self.read, done["entries"])
        self.assertEqual(self.read, writer.sent)
        self.assertEqual(self.node.tree()["walsvc"]["restarts"], 1)

    def test_the_view_of_a_small_disk_stands_still(self):
        self.assertEqual(self.node.stop(), 0)
        with open(self.node.config, "a", encoding="ascii") as file:
            file.write("query: {view: true}\n")
        self.node.start()
        self.assertEqual(self.node.json("kv", "put", "k", "v")["ack"], "local")
        for command in (("kv", "get", "k"), ("kv", "scan")):
            def says_why(command=command):
                done = self.node.ctl("--timeout", "1s", *command, check=False)
                self.assertEqual(done.returncode, 3)
                return b"unavailable: the view is not open: less than 64 MiB are free on the disk" in done.stderr
            wait_for(says_why, "the reason")  # who is held up for a second says that there was no answer
        self.assertFalse(os.path.exists(os.path.join(self.node.data, "view")))

    def fill_up(self):
        """Not a byte is left, of the reserve neither."""
        with open(os.path.join(self.node.data, "ballast"), "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)

    def test_a_start_without_any_room(self):
        said = b""
        while b"disk_full" not in said:
            last = self.durable()
            said = self.node.ctl("--timeout", "1s", "append", "--batch", "20", "-", check=False,
                                 input=b"".join(b"%0*d\n" % (LINE, last + i) for i in range(1, 5001))).stderr
        self.fill_up()
        self.assertEqual(self.node.stop(), 0)  # of batches under way some may still have found room until now
        self.node.start()
        kept = self.all_lines()
        for lost in (None, "mark", "scrub", "holds"):
            self.assertEqual(self.node.stop(), 0)
            if lost is not None and os.path.exists(os.path.join(self.node.log_dir(), lost)):
                os.unlink(os.path.join(self.node.log_dir(), lost))
            self.fill_up()
            self.node.start()
            self.assertEqual(self.all_lines(), kept)
            wait_for(self.is_refused, "an append to be refused")
            self.assertEqual(self.node.ctl("log", "verify", "--data", self.node.data).returncode, 0)
        self.assertFalse(self.node.log_lines('"msg":"death"'))  # each stop was a clean one
        self.assertFalse(os.path.exists(os.path.join(self.node.log_dir(), "mark")))
        os.unlink(os.path.join(self.node.data, "ballast"))
        wait_for(lambda: os.path.exists(os.path.join(self.node.log_dir(), "mark")), "the mark")
        self.node.ctl("log", "trim", "--release", "lost-register")
        self.make_room()
        last = self.node.json("append", "resumed")["first"]["lsn"]
        self.assertEqual(last, kept.count(b"\n") + 1)
        self.assertEqual(self.node.ctl("--format", "raw", "read", "--from", str(last)).stdout, b"resumed\n")

    def all_lines(self):
        return self.node.ctl("--format", "raw", "read", "--from", "1").stdout

    def durable(self):
        return self.node.json("status")["durable_lsn"]

    def finish(self, writer):
        """The rest of the lines may need room once more."""
        writer.stop = True

        def make_room():
            self.read_on()
            if len(self.node.info()["segments"]) > 3:
                self.make_room()

        def is_taken():
            make_room()
            return not writer.thread.is_alive()
        wait_for(is_taken, "the append to take its input", 120)
        writer.process.stdin.close()

        def is_done():
            make_room()
            return writer.process.poll() is not None
        wait_for(is_done, "the end of the append", 120)
        self.assertEqual(writer.process.returncode, 0, writer.process.stderr.read())
        return json.loads(writer.process.stdout.read())


if __name__ == "__main__":
    unittest.main()
