"""A daemon that stays away costs those who wait for it next to nothing: nng 1.5.2 loses descriptors with each dial over
ipc that fails, and in the end everything."""
import os
import subprocess
import time
import unittest

from shanghai import Node, wait_for

READS = 300
DESCRIPTORS_MOST = 90  # some 64, and one or more for each read if they leaked
SETTINGS = "wal:\n  segment_size: 4MiB"


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Away(unittest.TestCase):
    def check_reads_go_on(self, node, pid):
        """While a dialler that tries every 10 ms would have tried some hundred times."""
        for _ in range(READS):
            read = node.ctl("--format", "raw", "read", "--from", "1", "--count", "2")
            self.assertEqual(read.stdout, b"one\ntwo\n")
            self.assertLess(descriptors(pid), DESCRIPTORS_MOST)

    def check_walsvc_comes_back(self, node):
        start = time.monotonic()
        node.ctl("svc", "start", "walsvc")
        node.ctl("append", "three", endpoint=node.tcp)
        print(f"\nsvc start walsvc -> append through querysvc succeeded: {(time.monotonic() - start) * 1000:.0f} ms",
              flush=True)

    def test_walsvc_stopped(self):
        with Node(SETTINGS) as node:
            node.start()
            node.ctl("append", "one", "two")
            pid = node.pid("querysvc")
            node.ctl("svc", "stop", "walsvc")
            self.check_reads_go_on(node, pid)
            self.check_walsvc_comes_back(node)
            self.assertEqual(node.pid("querysvc"), pid)

    def test_walsvc_killed_and_held_down_for_a_damaged_log(self):
        """Then its socket files stay, with nobody behind them."""
        with Node(SETTINGS) as node:
            node.start()
            node.ctl("append", "one", "two")
            pid = node.pid("querysvc")
            identity = os.path.join(node.data, "node")
            os.rename(identity, identity + ".aside")
            node.kill("walsvc")
            wait_for(lambda: node.tree()["walsvc"]["state"] == "held", "walsvc to be held down")
            self.assertTrue(os.path.exists(os.path.join(node.run, "wal.in")))
            self.check_reads_go_on(node, pid)
            os.rename(identity + ".aside", identity)
            self.check_walsvc_comes_back(node)
            self.assertEqual(node.pid("querysvc"), pid)

    def test_client_of_a_node_that_was_killed(self):
        with Node(SETTINGS) as node, Node(SETTINGS) as other:
            node.start()
            other.start()
            other.ctl("append", "one", "two")
            node.kill_all()
            client = subprocess.Popen(node.ctl_command("--timeout", "10m", "append", "late"), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.check_reads_go_on(other, client.pid)
                self.assertIsNone(client.poll())
                node.start()
                self.assertEqual(client.wait(60), 0)
            finally:
                client.kill()
                client.wait()


if __name__ == "__main__":
    unittest.main()
