"""What `bench replicate` tells as JSON and as text, on a cluster of three; and when it says that there is nothing to measure.
It asserts no figure of speed."""
import json
import unittest

from cluster import Cluster
from shanghai import Node, wait_for

LIMIT_FIELDS = {"nng_tcp_rtt_us", "nng_tcp_bytes_per_s", "disk_sync_us", "disk_bytes_per_s"}
FIELDS = {"entries", "seconds", "rate", "bytes_per_s", "followers", "group_bytes"} | LIMIT_FIELDS
FOLLOWER_FIELDS = {"follower", "seconds", "rate", "bytes_per_s", "looks", "lag_p50_us", "lag_p99_us", "lag_p50_entries",
                   "lag_p99_entries"}


class BenchReplicate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().start()
        cls.node = cls.cluster["n1"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def states(self):
        """{follower: state}; {} without an answer."""
        return {f["follower"]: f["state"] for f in (self.node.try_json("replicas") or {"followers": []})["followers"]}

    def setUp(self):
        wait_for(lambda: len(self.states()) == 2 and "disconnected" not in self.states().values(), "both to follow")

    def words(self, *args):
        return "bench", "replicate", "--disk-dir", self.node.dir, *args

    def test_followers_get_what_is_appended(self):
        for seconds in (1, 10, 30):  # who looks may have to wait for a processor
            before = self.node.json("status")["durable_lsn"]
            figures = self.node.json(*self.words("--duration", f"{seconds}s", "--batch", "10", "--in-flight", "4"))
            if min(follower["looks"] for follower in figures["followers"]) > 10:
                break
        self.assertEqual(set(figures), FIELDS)
        for name in FIELDS - {"followers"}:
            self.assertGreater(figures[name], 0, name)
        self.assertEqual([f["follower"] for f in figures["followers"]], ["n2", "n3"])
        for follower in figures["followers"]:
            self.assertEqual(set(follower), FOLLOWER_FIELDS)
            self.assertGreaterEqual(follower["seconds"], seconds)
            self.assertLessEqual(abs(follower["rate"] * follower["seconds"] / figures["entries"] - 1), 0.01)
            self.assertGreater(follower["looks"], 10)
            self.assertLessEqual(follower["lag_p50_us"], follower["lag_p99_us"])
            self.assertLessEqual(follower["lag_p50_entries"], follower["lag_p99_entries"])
        replicas = self.node.json("replicas")
        self.assertEqual([f["lsn"] for f in replicas["followers"]], [before + 1 + figures["entries"]] * 2)  # 1 to connect

    def test_a_rate_is_kept(self):
        for seconds in (1, 10, 30):  # nobody appends while he waits for a processor
            figures = self.node.json(*self.words("--duration", f"{seconds}s", "--batch", "10", "--rate", "500"))
            self.assertLessEqual(figures["entries"], 500 * seconds + 10)
            if figures["entries"] > 50 * seconds:
                break
        self.assertGreater(figures["entries"], 50 * seconds)

    def test_local_and_quorum_in_turn(self):
        for duration in ("1ms", "1500ms"):
            figures = self.node.json(*self.words("--quorum", "--duration", duration))
            self.assertEqual(set(figures), LIMIT_FIELDS | {"local", "quorum", "ratio"})
            for level in ("local", "quorum"):
                self.assertGreater(figures[level]["entries"], 0)
                self.assertGreater(figures[level]["p50_us"], 0)
                self.assertLessEqual(figures[level]["p50_us"], figures[level]["p99_us"])
        self.assertAlmostEqual(figures["ratio"], figures["quorum"]["p50_us"] / figures["local"]["p50_us"], 2)

    def test_lines_for_people(self):
        text = self.node.ctl(*self.words("--duration", "200ms")).stdout.decode()
        for line in ("appended:", "n2:", "n3:", "commits:", "bare nng:", "bare disk:"):
            self.assertIn(line, text)
        text = self.node.ctl(*self.words("--duration", "200ms", "--quorum")).stdout.decode()
        for line in ("local:", "quorum:", "ratio:", "bare nng:", "bare disk:"):
            self.assertIn(line, text)

    def test_a_follower_that_is_down_is_named(self):
        n3 = self.cluster["n3"]
        n3.stop()
        self.addCleanup(self.cluster.wait_healthy)
        self.addCleanup(n3.start)
        self.cluster.wait_status("n3", "down", ["n1"])
        wait_for(lambda: [name for name, state in self.states().items() if state == "disconnected"] == ["n3"],
                 "replsvc to know")
        done = self.node.ctl("--format", "json", *self.words("--duration", "1s"), check=False)
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        error = json.loads(done.stderr)
        self.assertEqual((error["error"], error["text"]), ("unavailable", "n3 does not follow at the moment"))

    def test_options_that_do_not_go_together(self):
        for option in ("--rate", "--batch", "--in-flight"):
            done = self.node.ctl(*self.words("--quorum", option, "5"), check=False)
            self.assertEqual((done.returncode, done.stdout), (2, b""))
            self.assertIn(b"--quorum is one entry at a time", done.stderr)
        done = self.node.ctl("bench", "replicate", "--disk-dir", "/nonexistent", check=False)
        self.assertEqual(done.returncode, 2)


class Alone(unittest.TestCase):
    def test_a_node_that_nobody_follows_has_nothing_to_measure(self):
        with Node() as node:
            node.start()
            wait_for(lambda: node.json("status")["health"] == "healthy", "a healthy node")
            done = node.ctl("bench", "replicate", "--disk-dir", node.dir, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"not_found: nobody follows the node's log", done.stderr)


if __name__ == "__main__":
    unittest.main()
