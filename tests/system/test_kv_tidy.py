"""Rows of deleted keys and of expired values: they go once nobody can need them any more, and not before."""
import os
import random
import signal
import subprocess
import time
import unittest
import uuid

from caller import Caller
from cluster import SUPERVISOR, TIMES, Cluster
from logs import read_lines
from shanghai import BIN, Node, wait_for
from test_torn_tail import has_failpoints

VIEW_INFO, VIEW_INFO_REPLY = 132, 133
CLOCK_FRAME, CLOCK_FRAME_REPLY = 160, 161
ERROR, BAD_REQUEST = 3, 1
KEEP = "query: {tombstone_keep: %s}"
SOON = KEEP % "500ms"
ACK_ALL = ("--ack", "all", "--ack-timeout", "60s")


class Info:
    """What the view of a node says of itself."""

    def __init__(self, test, node):
        self.test, self.node = test, node

    def ask(self):
        """Each time by a new session: querysvc may have been killed meanwhile."""
        caller = Caller(self.test, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        kind, body = caller.ask(VIEW_INFO, {})
        self.test.assertEqual(kind, VIEW_INFO_REPLY, body)
        return {"rows": body.get(4, 0), "waiting": body.get(5, 0), "tidied": body.get(6, 0)}


class Rows:
    """Of a view on disk whose node is stopped."""

    def __init__(self, node):
        out = subprocess.run([os.path.join(BIN, "view_rows"), os.path.join(node.data, "view")], capture_output=True,
                             check=True, timeout=60)
        self.values, self.tombstones, self.expiring, self.waiting, self.estimate = map(int, out.stdout.split())


def txn(node, lines):
    return node.json("kv", "txn", input="\n".join(lines).encode())


def keys(node):
    return {row["key"] for row in node.json("kv", "scan")}


class Tidy(unittest.TestCase):
    def wait_tidied(self, node, hlc=1):
        def is_tidied():
            info = Info(self, node).ask()
            return info["waiting"] == 0 and info["tidied"] >= hlc
        wait_for(is_tidied, f"{node.name} to be tidied up", pause=0.1)

    def stopped_rows(self, node):
        self.assertEqual(node.stop(), 0)
        return Rows(node)

    def wait_still(self, cluster):
        """Nothing waits: nothing is written, however long, but for what was asked for before. {node: its log's end}"""
        def ends():
            return {name: node.json("status")["durable_end"] for name, node in cluster.nodes.items()}

        def is_still():
            before = ends()
            time.sleep(1)
            return before if ends() == before else None
        return wait_for(is_still, "an end of all writing")

    def test_what_is_deleted_or_has_expired_leaves_every_node(self):
        with Cluster(settings=f"{TIMES}\n{SOON}").start() as cluster:
            for name, node in cluster.nodes.items():
                txn(node, [f"put {name}.stays{i} value" for i in range(10)])
                txn(node, [f"put {name}.goes{i} value" for i in range(200)])
                for i in range(10):
                    node.ctl("kv", "put", f"{name}.expires{i}", "value", "--ttl", "300ms")
            last = max(txn(node, [f"del {name}.goes{i}" for i in range(200)])["hlc"] for name, node in cluster.nodes.items())
            for node in cluster.nodes.values():
                self.wait_tidied(node, last)
            for node in cluster.nodes.values():
                wait_for(lambda node=node: Info(self, node).ask()["rows"] < 100, "the rows' room to be freed", pause=0.1)
                self.assertEqual(keys(node), {f"{name}.stays{i}" for name in cluster.nodes for i in range(10)})
            ends = self.wait_still(cluster)
            for name, node in cluster.nodes.items():
                self.assertEqual(node.json("status")["durable_end"], ends[name])
                rows = self.stopped_rows(node)
                self.assertEqual((rows.values, rows.tombstones, rows.expiring, rows.waiting), (30, 0, 0, 0))
                self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)

    def test_a_put_that_comes_late_finds_the_tombstone(self):
        with Cluster(settings=f"{TIMES}\n{SOON}").start() as cluster:
            n1, n3 = cluster["n1"], cluster["n3"]
            n3.ctl("svc", "stop", "replsvc")
            old = [n3.json("kv", "put", f"late{i}", "old")["hlc"] for i in range(5)]
            deleted = [n1.json("kv", "del", f"late{i}")["hlc"] for i in range(5)]
            self.assertLess(max(old), min(deleted))
            n1.ctl("kv", "put", "late.too", "new")
            # n3 may still have something: what waits here goes on waiting.
            end = time.monotonic() + 4
            while time.monotonic() < end:
                for name in ("n1", "n2"):
                    info = Info(self, cluster[name]).ask()
                    self.assertLess(info["tidied"], min(deleted))
                    self.assertIn(info["waiting"], (0, min(deleted)))
                time.sleep(0.2)
            wait_for(lambda: keys(cluster["n2"]) == {"late.too"}, "n2 to have all of n1")
            self.assertEqual(self.stopped_rows(cluster["n2"]).tombstones, 5)
            cluster["n2"].start()
            n3.ctl("svc", "start", "replsvc")
            for node in cluster.nodes.values():
                self.wait_tidied(node, max(deleted))
                self.assertEqual(keys(node), {"late.too"})
            for node in cluster.nodes.values():
                rows = self.stopped_rows(node)
                self.assertEqual((rows.values, rows.tombstones, rows.waiting), (1, 0, 0))

    def test_a_member_that_has_left_does_not_count(self):
        with Cluster(settings=f"{TIMES}\n{SOON}").start() as cluster:
            cluster["n3"].ctl("kv", "put", "a", "1")
            cluster["n3"].kill_all()
            deleted = cluster["n1"].json("kv", "del", "a")["hlc"]
            cluster.wait_status("n3", "down", ["n1", "n2"])
            self.assertLess(Info(self, cluster["n1"]).ask()["tidied"], deleted)
            cluster["n1"].ctl("node", "leave", "n3")
            for name in ("n1", "n2"):
                self.wait_tidied(cluster[name], deleted)

    def test_kills_while_it_is_tidied_up(self):
        rng = random.Random(7)
        with Node(SOON, SUPERVISOR).start() as node:
            txn(node, [f"put stays{i} value" for i in range(100)])
            for turn in range(6):
                txn(node, [f"put goes{i} {turn}" for i in range(1500)])
                last = txn(node, [f"del goes{i}" for i in range(1500)])["hlc"]
                time.sleep(rng.random())
                node.kill("querysvc")
                node.wait_ready()
            self.wait_tidied(node, last)
            self.assertEqual(keys(node), {f"stays{i}" for i in range(100)})
            rows = self.stopped_rows(node)
            self.assertEqual((rows.values, rows.tombstones, rows.waiting), (100, 0, 0))

    def test_what_is_young_stays(self):
        with Node(KEEP % "1h").start() as node:
            node.ctl("kv", "put", "a", "1")
            deleted = node.json("kv", "del", "a")["hlc"]
            node.ctl("kv", "put", "b", "1", "--ttl", "1ms")
            wait_for(lambda: Info(self, node).ask()["waiting"] == deleted, "the tombstone to wait")
            end = node.json("status")["durable_end"]
            time.sleep(1)
            self.assertEqual(node.json("status")["durable_end"], end)
            self.assertEqual(self.stopped_rows(node).tombstones, 1)


class ClockFrames(unittest.TestCase):
    """As querysvc asks walsvc for them."""

    def ask(self, node, body):
        caller = Caller(self, f"{node.run}/wal.in", f"{node.run}/wal.out")
        return caller.ask(CLOCK_FRAME, body)

    def test_they_are_passed_on_and_stand_in_nobodys_way(self):
        with Cluster(2, settings=TIMES).start() as cluster:
            n1, n2 = cluster["n1"], cluster["n2"]
            log = n1.json("status")["log"]
            last = 0
            for turn in range(3):
                n1.ctl("append", f"before {turn}", *ACK_ALL)
                kind, body = self.ask(n1, {1: 5, 2: [uuid.UUID(log).bytes]})
                self.assertEqual(kind, CLOCK_FRAME_REPLY, body)
                self.assertGreater(body[1], last)
                last = body[1]
            wait_for(lambda: n2.json("log", "info", "--log", log)["durable_end"] == n1.json("status")["durable_end"],
                     "the last one to reach n2")
            n1.kill("walsvc")
            n1.wait_ready()
            n1.ctl("append", "behind", *ACK_ALL)
            for node in (n1, n2):
                wait_for(lambda node=node: read_lines(node, log) == ["before 0", "before 1", "before 2", "behind"],
                         f"{node.name} to show all lines")
            for node in (n1, n2):
                self.assertEqual(node.stop(), 0)
                self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)

    def test_what_is_malformed_is_refused(self):
        with Node() as node:
            node.start()
            end = node.json("status")["durable_end"]
            log = bytes(16)
            for body in ({1: 5}, {2: []}, {1: 5, 2: "x"}, {1: 5, 2: [b"short"]}, {1: 5, 2: [log] * 257}, {1: "x", 2: []}):
                kind, answer = self.ask(node, body)
                self.assertEqual((kind, answer[1]), (ERROR, BAD_REQUEST), body)
            self.assertEqual(node.json("status")["durable_end"], end)


class Trims(unittest.TestCase):
    """Sums tell whether an entry was lost, or counted twice."""

    def check(self, node, kill):
        added = 0
        node.start()
        for turn in range(10):
            for _ in range(10):
                txn(node, [f"incr sum {turn}"] + [f"put k{i} {'x' * 1000}" for i in range(200)])
                added += turn
            kill(node)
            newest = node.json("log", "info")["segments"][-1]["base_lsn"]
            node.ctl("--timeout", "60s", "log", "trim", "--before", str(newest), check=False)
            kill(node)
        node.wait_ready()

        def total():
            return any(row["counter"] == added for row in node.try_json("kv", "scan", "sum") or [])
        wait_for(total, "the sum", pause=0.1)
        self.assertFalse(node.log_lines("a log's entries are not applied to the view"))
        self.assertGreater(node.json("log", "info")["first_lsn"], 1)

    def test_a_node_without_a_view_trims_at_once(self):
        with Node("wal: {segment_size: 1MiB}\nquery: {view: false}") as node:
            node.start()
            for _ in range(10):
                txn(node, [f"put k{i} {'x' * 1000}" for i in range(200)])
            done = node.ctl("kv", "get", "k1", check=False)
            self.assertEqual(done.returncode, 3)
            self.assertIn(b"forbidden: this node keeps no view", done.stderr)
            done = node.json("log", "trim", "--before", str(node.json("log", "info")["segments"][-1]["base_lsn"]))
            self.assertEqual((len(node.json("log", "info")["segments"]), done["held_by"]), (1, []))
            self.assertFalse(os.path.exists(os.path.join(node.data, "view")))

    def test_querysvc_is_killed_around_trims(self):
        rng = random.Random(11)

        def kill(node):
            if rng.random() < 0.3:
                time.sleep(rng.random() / 4)
            node.kill("querysvc", signal.SIGKILL)
            node.wait_ready()
        with Node("wal: {segment_size: 1MiB}", SUPERVISOR) as node:
            self.check(node, kill)

    @unittest.skipUnless(has_failpoints(), "a build without failpoints")
    def test_a_kill_at_each_step(self):
        for point in ("view_flush", "view_flushed", "view_held"):
            with Node("wal: {segment_size: 1MiB}", SUPERVISOR, {"SHANGHAI_FAILPOINT": f"{point}=kill@3"}) as node:
                self.check(node, lambda node: None)
                self.assertGreaterEqual(node.tree()["querysvc"]["restarts"], 1)


if __name__ == "__main__":
    unittest.main()
