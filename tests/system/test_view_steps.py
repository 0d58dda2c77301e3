"""SIGKILL of querysvc at each step of its view: what is applied, flushed, opened, removed; by the failpoints of the debug build,
and by strace at the system calls with which RocksDB flushes. Whenever it comes, the view is what the logs say afterwards."""
import os
import shutil
import subprocess
import time
import unittest

from first_life import FirstLife, wait_restarted
from shanghai import BIN, wait_for
from test_steps import has_failpoints
from view_model import check_rows, is_up_to_date, model_of, wait_applied

SETTINGS = "query: {view: true, write_buffer_bytes: 1MiB}"  # RocksDB flushes on its own account, too
# name: arrivals at which it strikes.
POINTS = {"view_opened": (1,), "view_gathered": (1, 20), "view_applied": (1, 20), "view_flush": (1, 2), "view_flushed": (1, 2)}
CALLS = "fsync,fdatasync,sync_file_range,rename"
IS_LONG = os.environ.get("SHANGHAI_LONG") == "1"


class StepsTest(unittest.TestCase):
    kills = 0

    @classmethod
    def tearDownClass(cls):
        if cls.kills:
            print(f"\ncount: kills of querysvc at a step of the view {cls.kills}", flush=True)

    def write(self, node):
        """One frame, of keys that were written before."""
        self.written += 1
        i = self.written
        self.last = node.json("kv", "txn", input=(f"put k{i % 50} {i}\nincr n{i % 7} {i}\ndel k{i * 7 % 50}\n"
                                                  f"put big{i % 3} {'x' * 200000}{i}\n").encode())

    def setUp(self):
        self.written = 0

    def remove_view(self, fault):
        """Since the log was set back; the folder may be left with anything in it."""
        with FirstLife(SETTINGS, service="querysvc") as node:
            node.start()
            self.write(node)
            self.assertEqual(node.stop(), 0)
            log, kept = os.path.join(node.data, "log"), os.path.join(node.dir, "kept")
            shutil.copytree(log, kept)
            node.start()
            for _ in range(5):
                self.write(node)
            self.check(node)
            self.assertEqual(node.stop(), 0)
            shutil.rmtree(log)
            shutil.move(kept, log)
            node.arm(fault)
            node.start_through_fault()
            wait_for(lambda: node.log_lines("a log holds other entries than were applied"), "the view to be removed")
            node.wait_ready()
            self.write(node)
            self.check(node)
        type(self).kills += 1

    def check(self, node):
        wait_applied(node, self.last)
        wait_for(lambda: is_up_to_date(node), "all to be applied")
        check_rows(node, model_of(node, [node.json("status")["log"]]), int(time.time() * 1000))


@unittest.skipUnless(has_failpoints(), "a build without failpoints")
class Steps(StepsTest):
    def first_life(self, point, at=1):
        return FirstLife(SETTINGS, self.fault(point, at), service="querysvc")

    @staticmethod
    def fault(point, at=1):
        return ["env", f"SHANGHAI_FAILPOINT={point}=kill@{at}"]

    def strike(self, point, at):
        with self.first_life(point, at) as node:
            ended = node.start_through_fault()

            def is_struck():
                self.write(node)
                return ended or node.restarts() > 0
            wait_for(is_struck, "querysvc to meet its fault")
            node.wait_ready()
            for _ in range(3):
                self.write(node)
            self.check(node)
            self.assertEqual(node.restarts(), 0 if ended else 1, node.log_tail())
        type(self).kills += 1

    def test_what_is_applied_and_flushed(self):
        for point, arrivals in POINTS.items():
            for at in range(1, 1 + max(arrivals)) if IS_LONG else arrivals:
                with self.subTest(point=point, at=at):
                    self.strike(point, at)

    def test_a_clean_stop(self):
        """That does not come to its end."""
        for point in ("view_closing", "view_closed"):
            with self.subTest(point=point), self.first_life(point) as node:
                node.start()
                for _ in range(20):
                    self.write(node)
                self.check(node)
                pid = node.pid("querysvc")
                node.json("svc", "restart", "querysvc")
                wait_for(lambda n=node, p=pid: n.pid("querysvc") != p, "the next life of querysvc")
                node.wait_ready()
                self.write(node)
                self.check(node)
                type(self).kills += 1

    def test_a_view_that_is_removed(self):
        for point in ("view_closing", "view_closed", "view_removed", "view_opened=kill@2,view_none"):
            with self.subTest(point=point):
                self.remove_view(self.fault(point))


@unittest.skipIf(shutil.which("strace") is None or "asan" in BIN or "tsan" in BIN or has_failpoints(),
                 "strace, on what is installed")
class Flushes(StepsTest):
    def kill_at_call(self, node, when):
        """At the call of that number from now on."""
        path = os.path.join(node.dir, f"strace.{when}")
        with open(path, "wb") as err:
            strace = subprocess.Popen(["strace", "-f", "-p", str(node.pid("querysvc")), "-o", "/dev/null", "-e", f"trace={CALLS}",
                                       "-e", f"inject={CALLS}:signal=SIGKILL:when={when}"], stdin=subprocess.DEVNULL, stderr=err)

        def is_attached():
            with open(path, "rb") as said:
                return b"attached" in said.read()
        wait_for(is_attached, "strace to be attached")
        return strace

    def test_each_call_of_a_flush(self):
        with FirstLife(SETTINGS, service="querysvc") as node:
            node.start()
            for when in range(1, 25 if IS_LONG else 6):
                with self.subTest(when=when):
                    restarts = node.restarts()
                    strace = self.kill_at_call(node, when)

                    def is_struck(before=restarts):
                        self.write(node)
                        return node.restarts() > before
                    wait_for(is_struck, "the kill")
                    strace.wait(30)
                    node.wait_ready()
                    self.write(node)
                    self.check(node)
                    type(self).kills += 1

    def test_each_file_of_a_view_that_is_removed(self):
        for when in range(1, 20) if IS_LONG else range(6, 11):
            with self.subTest(when=when):
                self.remove_view(["strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=unlink,unlinkat,rmdir", "-e",
                                  f"inject=unlink,unlinkat,rmdir:signal=SIGKILL:when={when}"])


if __name__ == "__main__":
    unittest.main()
