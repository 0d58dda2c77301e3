"""The permit to write, with real daemons: without it an append is refused at once, and everything else works on."""
import json
import os
import subprocess
import unittest

from shanghai import BIN, Node, wait_for
from test_torn_tail import has_failpoints

REASON = "n1 has left the cluster"


class Permit(unittest.TestCase):
    def start(self, env=None):
        self.node = Node("wal: {segment_size: 1MiB}", env=env)
        self.addCleanup(self.node.close)
        self.node.start()
        if "membersvc" in self.node.tree():
            self.node.stop_service("membersvc")  # or it would have its own word

    def permit(self, *args):
        out = subprocess.run([os.path.join(BIN, "link_permit"), f"ipc://{self.node.run}/wal", *args],
                              capture_output=True, check=True, timeout=60)
        return out.stdout.decode().strip()

    def trimmed(self, before):
        """Segments; what the view has not applied yet stays."""
        done = self.node.ctl("--format", "json", "log", "trim", "--before", str(before), check=False)
        return json.loads(done.stdout or b"{}").get("segments", 0)

    def append(self, count, check=True):
        lines = b"".join(b"%0100d\n" % i for i in range(count))
        return self.node.ctl("--timeout", "60s", "append", "--batch", "100", "-", input=lines, check=check)

    def expect_refused(self, reason):
        """At once: it says so long before its own time is over, or the answer would be another one."""
        out = self.append(1000, check=False)
        self.assertNotEqual(out.returncode, 0)
        self.assertIn(b"read_only", out.stderr)
        self.assertIn(reason.encode(), out.stderr)

    def test_a_node_without_it_reads_and_trims_only(self):
        self.start()
        self.append(30000)
        self.assertEqual(self.permit("refuse", REASON), "ok 30000")
        self.expect_refused(REASON)
        self.assertEqual(len(self.node.ctl("--format", "raw", "read").stdout), 30000 * 101)
        newest = self.node.json("log", "info")["segments"][-1]["base_lsn"]
        wait_for(lambda: self.trimmed(newest) >= 1, "the view to have followed, and the trim")
        self.node.kill("walsvc")
        self.node.wait_ready()
        self.expect_refused(REASON)
        self.node.wait_durable(30000)
        self.assertEqual(self.permit("allow"), "ok 30000")
        self.append(1)
        self.node.wait_durable(30001)

    def test_killed_behind_the_file_it_stands_by_its_word(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")
        self.start({"SHANGHAI_FAILPOINT": "permit_written=kill"})
        self.append(1)
        self.assertEqual(self.permit("refuse", REASON), "ok 1")  # sent again to the next one, which knows it
        self.assertEqual(self.node.tree()["walsvc"]["restarts"], 1)
        self.expect_refused(REASON)

    def test_a_damaged_file_is_named(self):
        self.start()
        self.append(1)
        self.permit("refuse", REASON)
        self.permit("allow")
        self.assertEqual(self.node.stop(), 0)
        path = os.path.join(self.node.data, "permit")
        with open(path, "r+b") as file:
            file.seek(30)
            file.write(b"?")
        self.node.start()
        if "membersvc" not in self.node.tree():
            self.expect_refused(path)
            self.assertEqual(self.permit("allow"), "ok 1")
        self.append(1)
        self.node.wait_durable(2)


if __name__ == "__main__":
    unittest.main()
