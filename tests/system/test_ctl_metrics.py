"""shanghaictl metrics: what a node measures."""
import json
import unittest

from cluster import SUPERVISOR
from shanghai import SERVICES, Node, wait_for


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(SUPERVISOR).start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def told(self, *args):
        """Services that have told of their descriptors."""
        rows = self.node.try_json("metrics", *args) or []
        return {row["labels"]["service"]: row["value"] for row in rows if row["name"] == "shanghai_process_open_fds"}

    def test_each_daemon_tells_of_itself(self):
        wait_for(lambda: len(self.told("process_open_fds")) == len(SERVICES), "all daemons")
        told = self.told("process_open_fds")
        self.assertEqual(set(told), set(SERVICES))
        self.assertGreater(min(told.values()), 3)
        rows = self.node.json("metrics", "shanghai_process_start")
        self.assertEqual({row["name"] for row in rows}, {"shanghai_process_start_time_seconds"})

    def test_a_prefix_chooses(self):
        wait_for(lambda: "walsvc" in self.told(), "walsvc")
        rows = self.node.json("metrics", "wal_commit_")
        self.assertEqual({(row["name"], row["kind"]) for row in rows},
                         {("shanghai_wal_commit_group_frames", "histogram"), ("shanghai_wal_commit_seconds", "histogram")})
        self.assertEqual(set(rows[0]), {"name", "kind", "labels", "count", "sum", "p50", "p99"})
        self.assertEqual(self.node.json("metrics", "nothing_begins_so"), [])
        self.assertEqual(self.node.ctl("metrics", "x" * 200, check=False).returncode, 2)

    def test_a_text_is_a_table(self):
        wait_for(lambda: len(self.told()) == len(SERVICES), "all daemons")
        lines = self.node.ctl("metrics").stdout.decode().splitlines()
        self.assertEqual(lines[0].split(), ["metric", "labels", "value", "p50", "p99"])
        self.assertIn(["process_resident_memory_bytes", "service=obssvc"], [line.split()[:2] for line in lines])

    def test_without_obssvc_it_says_so_and_all_comes_back(self):
        wait_for(lambda: len(self.told()) == len(SERVICES), "all daemons")
        self.node.ctl("svc", "stop", "obssvc")
        try:
            done = wait_for(lambda: (lambda d: d if d.returncode != 0 else None)(
                self.node.ctl("--format", "json", "metrics", check=False)), "obssvc to be away")
            self.assertEqual((done.returncode, json.loads(done.stderr)["error"]), (3, "unavailable"))
            self.node.ctl("append", "goes on")
        finally:
            self.node.ctl("svc", "start", "obssvc")
        wait_for(lambda: len(self.told()) == len(SERVICES), "all daemons again")


if __name__ == "__main__":
    unittest.main()
