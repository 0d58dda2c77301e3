"""Reading a log of several segments as a client does: since a time, past the ends, by more readers than there are."""
import json
import os
import subprocess
import threading
import unittest
from datetime import datetime, timedelta, timezone

from shanghai import Node, wait_for

LINES = 90000
SETTINGS = "wal: {segment_size: 4MiB}\nquery: {readers: 2, reader_bytes: 256KiB}"


def line(i):
    return b"%0200d\n" % i


def rfc3339(ms, offset_hours=0):
    zone = timezone(timedelta(hours=offset_hours))
    at = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)
    return at.astimezone(zone).isoformat(timespec="milliseconds")


class Reading(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(SETTINGS)
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        cls.data = b"".join(line(i) for i in range(1, LINES + 1))
        cls.node.ctl("append", "--batch", "100", "-", input=cls.data)
        cls.segments = sorted(name for name in os.listdir(cls.node.log_dir()) if name.endswith(".seg"))
        assert len(cls.segments) >= 4, cls.segments
        out = cls.node.ctl("--format", "json", "read").stdout
        cls.times = [json.loads(text)["time_ms"] for text in out.splitlines()]
        assert len(cls.times) == LINES and cls.times == sorted(cls.times)

    def lines(self, *args, **options):
        return self.node.ctl("--format", "raw", *args, **options).stdout

    def fails(self, name, *args):
        done = self.node.ctl(*args, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""), done.stderr)
        self.assertIn(name, done.stderr)
        return done.stderr

    def since(self, ms):
        """What must come: everything from the first entry of that time on."""
        first = next((i for i, time in enumerate(self.times) if time >= ms), LINES)
        return self.data[first * len(line(0)):]

    def test_each_sealed_segment_has_its_index(self):
        def all_there():
            names = os.listdir(self.node.log_dir())
            return all(name.replace(".seg", ".idx") in names for name in self.segments[:-1])
        wait_for(all_there, "the indexes of all sealed segments")

    def test_since_a_time(self):
        for i in (0, 1, LINES // 7, LINES // 3, LINES // 2, LINES - 101, LINES - 1):
            for ms in (self.times[i], self.times[i] + 1):
                got = self.lines("read", "--since", rfc3339(ms))
                self.assertTrue(got == self.since(ms), (i, ms, got[:210]))
        ms = self.times[LINES // 2]
        self.assertTrue(self.lines("read", "--since", rfc3339(ms, 5)) == self.since(ms))
        self.assertTrue(self.lines("tail", "--since", rfc3339(ms)) == self.since(ms))
        self.assertTrue(self.lines("read", "--since", "1d") == self.data)
        self.assertTrue(self.lines("read", "--since", "1d", "--from", str(LINES)) == line(LINES))
        self.assertEqual(self.lines("read", "--since", "1d", "--count", "1"), line(1))
        self.assertEqual(self.lines("read", "--since", rfc3339(self.times[-1] + 1)), b"")
        self.assertEqual(self.lines("read", "--since", "9999-01-01T00:00:00Z"), b"")

    def test_a_wrong_time_is_wrong_usage(self):
        for command in ("read", "tail"):
            for text in ("", "soon", "10", "2026-11-26", "2026-11-26T03:30:00", "2026-02-30T00:00:00Z", "-1h"):
                done = self.node.ctl(command, f"--since={text}", check=False)
                self.assertEqual((done.returncode, done.stdout), (2, b""), text)
                self.assertIn(b"--since must be a time", done.stderr)
        done = self.node.ctl("tail", "--since", "1h", "--lines", "3", check=False)
        self.assertEqual(done.returncode, 2)

    def test_the_end_is_told_apart_from_what_never_was(self):
        self.assertEqual(self.lines("read", "--from", str(LINES)), line(LINES))
        self.assertEqual(self.lines("read", "--from", str(LINES + 1)), b"")
        self.assertIn(f"ends at LSN {LINES}".encode(), self.fails(b"not_found", "read", "--from", str(LINES + 2)))
        self.fails(b"not_found", "read", "--from", str(LINES + 2), "--since", "1h")

    def test_more_clients_than_readers_are_all_served(self):
        failures = []

        def read(first):
            got = self.lines("read", "--from", str(first), "--count", "20000")
            if got != self.data[(first - 1) * len(line(0)):][:20000 * len(line(0))]:
                failures.append(first)
        threads = [threading.Thread(target=read, args=(1 + i * 5000,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


class NewestSegment(unittest.TestCase):
    def test_a_time_late_in_a_large_segment_without_an_index(self):
        """querysvc looks through so many frames in several goes."""
        with Node() as node:
            node.start()
            node.ctl("append", "--batch", "100", "-", input=b"".join(line(i) for i in range(1, LINES + 1)))
            last = json.loads(node.ctl("--format", "json", "read", "--from", str(LINES)).stdout)
            since = rfc3339(last["time_ms"])
            first = json.loads(node.ctl("--format", "json", "read", "--since", since, "--count", "1").stdout)
            self.assertEqual(first["time_ms"], last["time_ms"])
            before = node.ctl("--format", "json", "read", "--from", str(first["lsn"] - 1), "--count", "1").stdout
            self.assertLess(json.loads(before)["time_ms"], last["time_ms"])


class Following(unittest.TestCase):
    def test_following_since_a_time_to_come_shows_nothing_older(self):
        with Node() as node:
            node.start()
            node.ctl("append", "old")
            tail = subprocess.Popen(node.ctl_command("--format", "json", "tail", "-f", "--since", "9999-01-01T00:00:00Z"),
                                    stdout=subprocess.PIPE, env=node.env)
            now = subprocess.Popen(node.ctl_command("--format", "json", "tail", "-f", "--since", "1h"),
                                   stdout=subprocess.PIPE, env=node.env)
            try:
                self.assertEqual(json.loads(now.stdout.readline())["payload"], "old")
                for i in range(5):
                    node.ctl("append", f"new{i}")
                    self.assertEqual(json.loads(now.stdout.readline())["payload"], f"new{i}")
                os.set_blocking(tail.stdout.fileno(), False)
                self.assertIsNone(tail.stdout.read())
            finally:
                for process in (tail, now):
                    process.kill()
                    process.wait(10)
                    process.stdout.close()


class Trimmed(unittest.TestCase):
    """The files go as trimming takes them."""

    def test_trimmed_and_corrupt_are_told_apart(self):
        with Node(SETTINGS) as node:
            node.start()
            data = b"".join(line(i) for i in range(1, LINES + 1))
            node.ctl("append", "--batch", "100", "-", input=data)
            segments = sorted(name for name in os.listdir(node.log_dir()) if name.endswith(".seg"))
            self.assertGreaterEqual(len(segments), 4)
            left = int(segments[1][:20])
            os.unlink(os.path.join(node.log_dir(), segments[0]))
            done = node.ctl("read", check=False)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"trimmed", done.stderr)
            self.assertIn(str(left).encode(), done.stderr)
            self.assertEqual(node.json("status")["first_lsn"], left)
            rest = data[(left - 1) * len(line(0)):]
            self.assertTrue(node.ctl("--format", "raw", "read", "--from", str(left)).stdout == rest)
            self.assertTrue(node.ctl("--format", "raw", "read", "--since", "1h").stdout == rest)
            os.unlink(os.path.join(node.log_dir(), segments[2]))  # a hole is no trimming
            node.restart_service("querysvc")  # which may still have it open
            node.wait_ready()
            done = node.ctl("--format", "raw", "read", "--from", str(left), check=False)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stdout.count(b"\n"), int(segments[2][:20]) - left)
            self.assertIn(b"corrupt", done.stderr)


class Killed(unittest.TestCase):
    def test_a_kill_behind_an_index_costs_no_line_and_no_index(self):
        """Only in a build with failpoints: walsvc is killed when it has written its second index, each time."""
        with Node(SETTINGS, env={"SHANGHAI_FAILPOINT": "seal_indexed=kill@2"}) as node:
            if not json.loads(node.ctl("--format", "json", "version").stdout).get("failpoints"):
                self.skipTest("a build without failpoints")
            node.start()
            data = b"".join(line(i) for i in range(1, LINES + 1))
            node.ctl("append", "--batch", "100", "-", input=data)
            wait_for(lambda: node.tree()["walsvc"]["restarts"] > 0, "walsvc's restart")
            node.wait_ready()
            self.assertTrue(node.ctl("--format", "raw", "read").stdout == data)

            def all_there():
                names = os.listdir(node.log_dir())
                segments = sorted(name for name in names if name.endswith(".seg"))
                return all(name.replace(".seg", ".idx") in names for name in segments[:-1])
            wait_for(all_there, "the indexes of all sealed segments")
            node.ctl("log", "verify", "--data", node.data)


if __name__ == "__main__":
    unittest.main()
