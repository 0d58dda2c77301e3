"""Consumers that go from node to node: nothing is skipped, whatever is killed, and each cursor has one owner."""
import json
import os
import random
import shutil
import subprocess
import threading
import time
import unittest

from cluster import TIMES, Cluster
from logs import log_of
from shanghai import wait_for

LINES = 2000 if os.environ.get("SHANGHAI_LONG") else 250
KILLED = ("querysvc", "walsvc", "replsvc", "membersvc")
SETTINGS = TIMES + "\nquery: {view: true}"


def try_json(node, *args, timeout="3s"):
    """None: it failed, or did not answer in time, as it may while daemons are killed."""
    done = node.ctl("--format", "json", "--timeout", timeout, *args, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


class Consumer:
    """Reads all logs behind a cursor, on one node. timeout: of each command."""

    def __init__(self, node, logs, name="work", timeout="3s"):
        self.node, self.logs, self.name, self.timeout = node, logs, name, timeout
        self.held = self.position = None

    def take(self, *options):
        """False: not this time."""
        self.held = try_json(self.node, "cursor", "take", *options, self.name, timeout=self.timeout)
        if self.held is None:
            return False
        self.position = {place["log"]: place["lsn"] for place in self.held["position"]}
        return True

    def read(self, most):
        """The next lines of each log; the position moves with them, but for the cursor's."""
        lines = []
        for log in self.logs:
            done = self.node.ctl("--format", "json", "--timeout", self.timeout, "read", "--log", log, "--from",
                                 str(self.position.get(log, 0) + 1), "--count", str(most), check=False)
            if done.returncode != 0:
                continue  # not there yet, or its daemon was killed
            for entry in map(json.loads, done.stdout.splitlines()):
                assert entry["lsn"] == self.position.get(log, 0) + 1, "a gap"
                self.position[log] = entry["lsn"]
                lines += [entry["payload"]] if entry["kind"] == "event" else []
        return lines

    def commit(self):
        """The exit code."""
        places = [f"{log}:{lsn}" for log, lsn in self.position.items()]
        return self.node.ctl("--timeout", self.timeout, "cursor", "set", self.name, "--epoch", str(self.held["epoch"]),
                             "--owner", self.held["owner"], *places, check=False)


class CursorNodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(settings=SETTINGS).start()
        cls.logs = [log_of(cls.cluster, name) for name in cls.cluster.nodes]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def consumer(self, node, name=None):
        return Consumer(self.cluster[node], self.logs, name or self.id().rsplit(".", 1)[1][-60:], "60s")

    def shown(self, name, *fields):
        """What each node shows of the cursor."""
        rows = [try_json(node, "cursor", "show", name) for node in self.cluster.nodes.values()]
        return [None if row is None else tuple(row[field] for field in fields) for row in rows]

    def wait_same(self, name):
        """Until all nodes show the same; returns it."""
        def same():
            rows = self.shown(name, "epoch", "owner", "written")
            return rows[0] is not None and rows.count(rows[0]) == 3 and rows[0]
        return wait_for(same, "one owner everywhere")

    def test_a_cursor_goes_along_with_a_session(self):
        name, file = "along", os.path.join(self.cluster["n1"].dir, "along")
        self.cluster["n1"].ctl("append", "--batch", "10", "-", input=b"x\n" * 100)
        for i in range(1, 31):
            node = self.cluster[f"n{i % 3 + 1}"]
            held = node.json("cursor", "take", "--session", file, name)
            self.assertEqual(held["epoch"], i)
            self.assertEqual([place["lsn"] for place in held["position"]], [i - 1] if i > 1 else [])
            node.ctl("cursor", "set", "--session", file, name, "--epoch", str(i), "--owner", held["owner"],
                     f"{self.logs[0]}:{i}")

    def test_a_stale_owner_is_refused_once_its_node_knows(self):
        first, second = self.consumer("n1"), self.consumer("n2")
        self.assertTrue(first.take())
        wait_for(lambda: self.shown(first.name, "epoch")[1] == (1,), "n2 to know")
        self.assertTrue(second.take())
        self.assertEqual(second.held["epoch"], 2)

        def refused():
            first.position = {}
            done = first.commit()
            self.assertIn(done.returncode, (0, 1), done)
            return done.returncode == 1 and b"epoch 2" in done.stderr
        wait_for(refused, "n1 to know")
        self.assertEqual(second.commit().returncode, 0)
        self.assertEqual(self.wait_same(first.name)[:2], (2, second.held["owner"]))

    def test_of_two_that_take_it_apart_one_has_it_in_the_end(self):
        nodes = ("n1", "n2")
        for name in nodes:
            self.cluster[name].stop_service("replsvc")
        consumers = [self.consumer(name) for name in nodes]
        for consumer in consumers:
            self.assertTrue(consumer.take())
            self.assertEqual(consumer.held["epoch"], 1)
            self.assertEqual(consumer.commit().returncode, 0)
        for name in nodes:
            self.cluster[name].ctl("svc", "start", "replsvc")
        owner = self.wait_same(consumers[0].name)[1]
        won, lost = sorted(consumers, key=lambda consumer: consumer.held["owner"] != owner)
        self.assertEqual((won.commit().returncode, lost.commit().returncode), (0, 1))
        self.assertEqual(self.wait_same(won.name)[1], owner)
        self.assertTrue(lost.take())
        self.assertEqual(lost.held["epoch"], 2)

    def test_a_commit_on_a_node_that_does_not_know_yet_waits_until_it_does(self):
        self.cluster["n3"].stop_service("replsvc")
        consumer = self.consumer("n1")
        self.assertTrue(consumer.take())
        moved = self.consumer("n3")
        moved.held, moved.position = consumer.held, {}
        self.assertEqual(moved.commit().returncode, 1, "not_found: it has never heard of it")
        codes = []
        taker = self.cluster["n1"].json("cursor", "take", consumer.name)
        self.cluster["n3"].ctl("cursor", "take", consumer.name)  # in epoch 1 there
        moved.held = taker
        commit = threading.Thread(target=lambda: codes.append(moved.commit().returncode))
        commit.start()
        self.cluster["n3"].ctl("svc", "start", "replsvc")
        commit.join()
        self.assertEqual(codes, [0])

    def test_a_node_that_lost_its_view_has_the_cursor_again(self):
        consumer, node = self.consumer("n1"), self.cluster["n3"]
        self.assertTrue(consumer.take())
        consumer.position = {self.logs[0]: 3, self.logs[2]: 7}
        self.assertEqual(consumer.commit().returncode, 0)
        before = self.wait_same(consumer.name)
        self.assertEqual(node.stop(), 0)
        shutil.rmtree(os.path.join(node.data, "view"))
        node.start()
        self.assertEqual(self.wait_same(consumer.name), before)
        after = self.consumer("n3")
        self.assertTrue(after.take())
        self.assertEqual((after.held["epoch"], after.position), (2, consumer.position))

    def test_all_nodes_hold_what_it_has_not_read_in_each_log(self):
        consumer = self.consumer("n2")
        self.assertTrue(consumer.take())
        consumer.position = {self.logs[0]: 4}
        self.assertEqual(consumer.commit().returncode, 0)

        def held(log):
            found = []
            for node in self.cluster.nodes.values():
                holds = (try_json(node, "log", "info", "--log", log) or {}).get("holds", [])
                found += [hold["lsn"] for hold in holds if (hold["kind"], hold["name"]) == ("cursor", consumer.name)]
            return found
        wait_for(lambda: [held(log) for log in self.logs] == [[5] * 3, [1] * 3, [1] * 3], "holds on all nodes")
        self.cluster["n3"].ctl("cursor", "delete", consumer.name)
        wait_for(lambda: [held(log) for log in self.logs] == [[], [], []], "holds to go on all nodes")


class Killed(unittest.TestCase):
    def produce(self, node):
        """Notes what was acknowledged, and goes on after what was not."""
        for i in range(LINES // 5):
            lines = [f"{node.name}-{i}-{k}" for k in range(5)]
            done = node.ctl("--timeout", "10s", "append", "--batch", "5", "-", input="\n".join(lines).encode() + b"\n",
                            check=False)
            if done.returncode == 0:
                self.acknowledged += lines
        self.producing -= 1

    def consume(self, rng):
        """One life of a consumer on some node: how it ends, it does not know itself."""
        consumer = Consumer(self.cluster[rng.choice(sorted(self.cluster.nodes))], self.logs)
        if not consumer.take():
            return
        for _ in range(rng.randrange(1, 6)):
            self.processed.update(consumer.read(rng.randrange(1, 40)))
            if rng.random() < 0.3:
                return  # crashed before it could commit
            if consumer.commit().returncode != 0:
                return  # somebody has taken it, or the node is in trouble

    def consume_on(self, seed):
        rng = random.Random(seed)
        try:
            while not self.ends.is_set():
                self.consume(rng)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self.failures.append(error)

    def kill_on(self, seed):
        rng = random.Random(seed)
        while self.producing > 0:
            self.cluster[rng.choice(sorted(self.cluster.nodes))].kill(rng.choice(KILLED))
            self.kills += 1
            self.ends.wait(rng.uniform(0.1, 0.4))

    def test_nothing_is_skipped(self):
        seed = random.randrange(1 << 30)
        print(f"seed {seed}", flush=True)
        with Cluster(settings=SETTINGS).start() as self.cluster:
            self.logs = [log_of(self.cluster, name) for name in self.cluster.nodes]
            self.acknowledged, self.processed, self.failures = [], set(), []
            self.ends, self.kills, self.producing = threading.Event(), 0, 3
            producers = [threading.Thread(target=self.produce, args=(node,)) for node in self.cluster.nodes.values()]
            others = [threading.Thread(target=self.consume_on, args=(seed + i,)) for i in range(2)]
            others.append(threading.Thread(target=self.kill_on, args=(seed,)))
            for thread in producers + others:
                thread.start()
            for thread in producers:
                thread.join()
            self.assertGreater(self.kills, 5)
            self.assertGreater(len(self.acknowledged), LINES)
            try:
                self.wait_read()
                wait_for(lambda: self.cluster["n1"].json("cursor", "show", "work")["epoch"] > 5, "more takes", 120)
            finally:
                self.ends.set()
                for thread in others:
                    thread.join()
            self.assertEqual(self.failures, [])

    def wait_read(self):
        """Until some node's cursor is at the end of all logs; then everything before it was processed. However long that
        takes: as long as they go on, it must move."""
        furthest, ends, moved = -1, False, time.monotonic()
        while not ends:
            rows = [try_json(node, "cursor", "show", "work") for node in self.cluster.nodes.values()]
            now_at = max((sum(log["lsn"] for log in row["logs"]) for row in rows if row is not None), default=-1)
            if now_at > furthest:
                furthest, moved = now_at, time.monotonic()
            ends = any(row is not None and self.is_behind_all(row) for row in rows)
            self.assertEqual(self.failures, [])
            self.assertLess(time.monotonic() - moved, 60, f"the cursor stands still: {rows}")
            time.sleep(0.2)
        missing = set(self.acknowledged) - self.processed
        self.assertEqual(missing, set())

    def is_behind_all(self, row):
        """Commits are entries, too: of these the last ones of each log are always to come."""
        last = {}
        for name, node in self.cluster.nodes.items():
            if name not in self.last_events:
                entries = node.ctl("--format", "json", "read", "--from", "1", "--count", "1000000").stdout.splitlines()
                self.last_events[name] = max(entry["lsn"] for entry in map(json.loads, entries) if entry["kind"] == "event")
            last[log_of(self.cluster, name)] = self.last_events[name]
        return all(log["lsn"] >= last[log["log"]] for log in row["logs"])

    def setUp(self):
        self.last_events = {}


if __name__ == "__main__":
    unittest.main()
