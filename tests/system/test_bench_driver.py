"""bench/bench.py: what it prints, that nothing is left behind, and what it refuses. It asserts no figure."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from shanghai import free_port, process_exists, wait_for

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench")
DRIVER = os.path.join(BENCH, "bench.py")
sys.path.insert(0, BENCH)
import redis_peer  # pylint: disable=wrong-import-position
HAS_REDIS = shutil.which("redis-server") and shutil.which("redis-benchmark")


def children(pid):
    """Program and pid of each."""
    names = {}
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            try:
                names[os.path.basename(os.readlink(f"/proc/{child}/exe"))] = int(child)
            except OSError:
                pass  # it has just ended
    return names


class BenchDriver(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir)

    def command(self, *args):
        return [sys.executable, DRIVER, "--dir", self.dir, *args]

    def run_driver(self, *args, **options):
        return subprocess.run(self.command(*args), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=300, **options)

    def measure(self, *args):
        done = self.run_driver("--quick", "--duration", "0.2", "--json", "-", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.listdir(self.dir), [])
        self.assertIn("to reach", done.stderr)
        return json.loads(done.stdout)["works"]

    @unittest.skipUnless(HAS_REDIS, "needs Debian's package redis-server")
    def test_ours_and_redis_are_compared(self):
        works = self.measure("--only", "redis-128", "--only", "redis-1k")
        self.assertEqual(list(works), ["redis-128", "redis-1k"])
        for work in works.values():
            for side in ("ours", "redis"):
                self.assertEqual(len(work["rounds"][side]), 1)
                self.assertGreater(work[side]["rate"], 0)
                self.assertGreater(work[side]["p99_us"], 0)
            self.assertEqual(work["ratio"], round(work["ours"]["rate"] / work["redis"]["rate"], 2))

    @unittest.skipUnless(HAS_REDIS, "needs Debian's package redis-server")
    def test_keys_are_compared(self):
        work = self.measure("--only", "redis-kv")["redis-kv"]
        for side in ("ours", "redis"):
            for name in ("put", "get", "get_batch", "scan"):
                self.assertGreater(work[side][f"{name}_rate"], 0, (side, name))
        self.assertEqual(set(work["goals"]), {"put", "get", "get_batch", "scan"})
        self.assertEqual(work["ratios"]["get"], round(work["ours"]["get_rate"] / work["redis"]["get_rate"], 2))

    def test_what_needs_no_redis_is_measured(self):
        works = self.measure("--only", "scan", "--only", "callers", "--only", "read")
        self.assertEqual(list(works), ["scan", "caller-1", "callers-50", "callers-50x4", "read"])
        self.assertEqual([(f["batch"], f["in_flight"]) for f in works["scan"]["settings"]],
                         [(20, 1), (20, 4), (100, 1), (100, 4)])
        for name in ("caller-1", "callers-50", "callers-50x4"):
            self.assertGreater(works[name]["median"]["rate"], 0)
        for size in ("size_128", "size_1024"):
            self.assertGreater(works["read"][size]["median"]["rate"], 0)

    def test_replication_is_measured(self):
        work = self.measure("--only", "replicate")["replicate"]
        self.assertEqual(len(work["rounds"]), 1)
        for part in ("full", "half", "quorum", "catch_up"):
            self.assertIn("to reach", work[part]["target"])
            for name, value in work[part]["median"].items():  # who is never seen behind lags for no time
                self.assertGreaterEqual(value, 0 if name.startswith("lag_") else 1e-9, work[part])
        self.assertGreaterEqual(work["catch_up"]["median"]["bytes"], 64 << 20)

    def test_a_file_for_the_figures(self):
        path = os.path.join(self.dir, "figures.json")
        done = self.run_driver("--quick", "--duration", "0.1", "--only", "caller-1", "--json", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 caller", done.stdout)
        with open(path, encoding="ascii") as file:
            self.assertEqual(list(json.load(file)["works"]), ["caller-1"])

    def test_missing_programs_are_named_before_anything_runs(self):
        done = self.run_driver("--only", "redis-128", env=dict(os.environ, PATH=self.dir))
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get install redis-server", done.stderr)
        self.assertEqual(os.listdir(self.dir), [])

    def test_files_that_cannot_be_written_are_named_before_anything_runs(self):
        for args in (("--json", "/nonexistent/x"), ("--dir", "/proc/nonexistent")):
            done = self.run_driver("--only", "caller-1", *args)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn(args[1], done.stderr)
            self.assertEqual(done.stdout, "")
        self.assertEqual(os.listdir(self.dir), [])

    def test_bad_words_are_refused(self):
        for args in (("--only", "x"), ("--duration", "0"), ("--duration", "x"), ("--rounds", "0"), ("--dir", "a b"),
                     ("--dir", "/tmp/" + "x" * 90), ("y",)):
            done = self.run_driver(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertIn("usage: script/bench", done.stderr)

    def stopped_while(self, program, *args):
        """SIGTERM while a child runs the program: all of them end, and their files are gone."""
        with subprocess.Popen(self.command("--quick", "--duration", "60", *args), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            def started():
                programs = children(driver.pid)
                return programs if program in programs else None
            try:
                pids = wait_for(started, f"{program} to run", 60).values()
                driver.send_signal(signal.SIGTERM)
                self.assertEqual(driver.wait(60), 1)
            finally:
                driver.kill()
        self.assertFalse([pid for pid in pids if process_exists(pid)])
        self.assertEqual(os.listdir(self.dir), [])

    def test_it_can_be_stopped_while_the_node_is_measured(self):
        self.stopped_while("shanghaictl", "--only", "caller-1")


@unittest.skipUnless(HAS_REDIS, "needs Debian's package redis-server")
class PrivateRedis(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir)

    def assert_gone(self, peer):
        self.assertFalse(process_exists(peer.process.pid))
        self.assertEqual(os.listdir(self.dir), [])

    def test_it_syncs_each_append_does_nothing_else_and_is_gone_afterwards(self):
        with self.assertRaises(ZeroDivisionError):
            with redis_peer.Redis(self.dir) as peer:
                for name, value in (("appendonly", b"yes"), ("appendfsync", b"always"), ("save", b""),
                                    ("bind", b"127.0.0.1"), ("dir", peer.dir.encode()),
                                    ("auto-aof-rewrite-percentage", b"0")):
                    self.assertEqual(peer.ask("CONFIG", "GET", name)[1], value, name)
                peer.append_for(0.1, 128)
                self.assertGreaterEqual(peer.entries(), redis_peer.CALIBRATE)
                raise ZeroDivisionError
        self.assert_gone(peer)

    def test_another_port_is_taken_when_somebody_was_quicker(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            ports = [taken.getsockname()[1], free_port(1)]
            with mock.patch("redis_peer.free_port", lambda span: ports.pop(0)), redis_peer.Redis(self.dir) as peer:
                self.assertEqual(ports, [])
                self.assertEqual(peer.entries(), 0)
        self.assert_gone(peer)

    def test_a_redis_that_does_not_sync_is_not_measured(self):
        with redis_peer.Redis(self.dir) as peer:
            with socket.create_connection(("127.0.0.1", peer.port)) as connection:
                connection.sendall(b"CONFIG SET appendfsync everysec\r\n")
                self.assertEqual(connection.recv(16), b"+OK\r\n")
            with self.assertRaisesRegex(RuntimeError, "does not sync"):
                peer.append_for(0.1, 128)


if __name__ == "__main__":
    unittest.main()
