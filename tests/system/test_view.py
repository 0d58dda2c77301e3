"""How far the view is, and its digest: what is the same on all nodes."""
import os
import time
import unittest

from caller import Caller
from cluster import TIMES, Cluster
from shanghai import Node, wait_for
from view_model import Model, check_rows, is_up_to_date, model_of, wait_applied, wait_equal_digests

ERROR, VIEW_DIGEST, VIEW_DIGEST_REPLY = 3, 148, 149
SETTINGS = "query: {view: true}"


class OneNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(SETTINGS).start()
        cls.log = cls.node.json("status")["log"]

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def write(self, text):
        wait_applied(self.node, self.node.json("kv", "txn", input=text.encode()))

    def digest(self, *args):
        return self.node.json("view", "digest", *args)

    def test_info_says_how_far_it_is(self):
        self.write("put a x\n")
        durable = self.node.json("status")["durable_lsn"]

        def is_on_disk():
            return self.node.json("view", "info")["logs"][0]["flushed_lsn"] == durable
        wait_for(is_on_disk, "the view to be on disk")
        info = self.node.json("view", "info")
        self.assertGreater(info.pop("rows"), 0)
        self.assertEqual(info, {
            "opened": True, "error": "", "state": "following", "percent": 0, "peer": "", "fetched_bytes": 0, "fetched_rows": 0,
            "lacks": "", "logs": [{
                "log": self.log, "origin": "n1", "applied_lsn": durable, "flushed_lsn": durable, "durable_lsn": durable,
                "behind": 0}]})
        text = self.node.ctl("view", "info").stdout.decode().splitlines()
        self.assertEqual(text[0].split(), ["open:", "yes"])
        self.assertEqual(text[1].split(), ["state:", "following", "the", "logs"])
        self.assertEqual(text[3].split(), ["LOG", "ORIGIN", "APPLIED", "ON", "DISK", "DURABLE", "BEHIND"])
        self.assertEqual(text[4].split(), [self.log, "n1", *[str(durable)] * 3, "0"])

    def test_a_digest_is_of_what_the_rows_say(self):
        self.write("put d/a x\nput d/b y\nincr d/n 5\n")
        first = self.digest()
        self.assertEqual(first["applied"], {self.log: self.node.json("status")["durable_lsn"]})
        again = self.digest("--at", str(first["at_ms"]))
        self.assertEqual(again, first)
        seen = {first["digest"]}
        for change in ("put d/a z\n", "incr d/n 1\n", "incr d/n 0\n", "put d/a z\n", "del d/b\n", "put d/c \n"):
            with self.subTest(change=change):
                self.write(change)
                digest = self.digest()["digest"]
                self.assertNotIn(digest, seen)
                seen.add(digest)
        kinds = {kind["kind"]: kind["rows"] for kind in self.digest()["kinds"]}
        shown = self.node.json("kv", "scan")
        self.assertEqual(kinds, {"values": sum("value" in row for row in shown),
                                 "counters": sum("counter" in row for row in shown)})
        text = self.node.ctl("view", "digest").stdout.decode()
        self.assertRegex(text, rf"(?s)^digest: +[0-9a-f]{{32}}\nat: +\d+\n.*values: +[0-9a-f]{{32}}  .*\n  {self.log} \d+\n$")

    def test_tombstones_and_what_has_expired_are_not_in_it(self):
        before = self.digest()["digest"]
        self.write("put gone x\nput gone y\n")
        self.write("del gone\n")
        self.assertEqual(self.digest()["digest"], before)
        done = self.node.json("kv", "put", "--ttl", "1h", "short", "x")
        wait_applied(self.node, done)
        ends_ms = (done["hlc"] >> 16) + 3600 * 1000
        self.assertNotEqual(self.digest("--at", str(ends_ms - 1))["digest"], before)
        self.assertEqual(self.digest("--at", str(ends_ms))["digest"], before)
        self.assertNotEqual(self.digest()["digest"], before)
        self.write("del short\n")

    def test_it_is_the_same_after_a_restart_and_when_the_view_is_made_again(self):
        self.write("".join(f"put r/{i} {i}\nincr r/{i}\nincr r/{i % 7} {i}\n" for i in range(500)))
        before = self.digest()
        for wipes in (False, True):
            self.assertEqual(self.node.stop(), 0)
            if wipes:
                for name in os.listdir(os.path.join(self.node.data, "view")):
                    os.unlink(os.path.join(self.node.data, "view", name))
            self.node.start()
            wait_for(lambda: is_up_to_date(self.node), "the view to have applied all")
            self.assertEqual(self.digest("--at", str(before["at_ms"])), before)

    def test_bad_times_are_refused(self):
        for at in ("0", "x", "-1", str(1 << 63)):
            self.assertEqual(self.node.ctl("view", "digest", "--at", at, check=False).returncode, 2, at)
        caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        for body in ({1: "x"}, {1: 1 << 63}, {1: b""}):
            self.assertEqual(caller.ask(VIEW_DIGEST, body)[0], ERROR, body)

    def test_many_that_ask_at_once_are_answered_in_turn_or_refused(self):
        self.write("put q/a x\n")
        caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        sent = {caller.send(VIEW_DIGEST, {}) for _ in range(200)}
        answers = [caller.take() for _ in sent]
        self.assertEqual({number for number, _, _ in answers}, sent)
        done = [body for _, kind, body in answers if kind == VIEW_DIGEST_REPLY]
        self.assertGreater(len(done), 0)
        self.assertEqual({body[1] for body in done}, {done[0][1]})
        self.assertEqual({body[1] for _, kind, body in answers if kind == ERROR} - {3}, set(), "overloaded, nothing else")

    def test_who_asked_and_went_away_leaves_nothing_behind(self):
        self.write("put w/a x\n")
        for _ in range(20):
            caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
            caller.send(VIEW_DIGEST, {})
        self.assertEqual(len(self.digest()["digest"]), 32)


class NoView(unittest.TestCase):
    def test_a_node_that_keeps_none_says_so(self):
        with Node("query: {view: false}").start() as node:
            for command in ("info", "digest"):
                done = node.ctl("view", command, check=False)
                self.assertEqual(done.returncode, 3)
                self.assertIn(b"keeps no view", done.stderr)


class ThreeNodes(unittest.TestCase):
    def test_nodes_that_have_applied_the_same_have_the_same_digest(self):
        with Cluster(settings=TIMES + "\n" + SETTINGS).start() as cluster:
            nodes = list(cluster.nodes.values())
            for i in range(30):
                for node in nodes:
                    node.ctl("kv", "txn", input=f"put k{i % 5} {node.name} {i}\nincr n{i % 3} {i}\ndel k{i % 7}\n".encode())
            nodes[0].ctl("kv", "put", "--ttl", "1h", "short", "x")
            nodes[1].ctl("kv", "put", "--ttl", "1ms", "shorter", "x")
            logs = [node.json("status")["log"] for node in nodes]
            wait_for(lambda: all(map(is_up_to_date, nodes)), "all to be applied")
            answer = wait_equal_digests(nodes)
            self.assertEqual(answer["applied"], {log: nodes[i].json("status")["durable_lsn"] for i, log in enumerate(logs)})
            model = model_of(nodes[0], logs)
            self.assertIsInstance(model, Model)
            now_ms = int(time.time() * 1000)
            for node in nodes:
                check_rows(node, model, now_ms)


if __name__ == "__main__":
    unittest.main()
