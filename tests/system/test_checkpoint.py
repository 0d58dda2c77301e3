"""A view that lacks what was trimmed from the logs gets it from another member's."""
import os
import unittest

from caller import Caller
from cluster import TIMES, Cluster
from logs import log_of
from shanghai import Node, wait_for
from trimmed import (STATES, VIEW_SETTINGS, checkpoint_files, checkpoint_holds, fill, first_lsn, lose_view, rows, state_of,
                     trim_all, view_info, wait_equal_views, wait_let_go, write)

SETTINGS = VIEW_SETTINGS + TIMES
ERROR, CHECKPOINT, CHECKPOINT_REPLY = 3, 150, 151
LOOK, OPEN, ROWS, CLOSE = range(4)
BAD_REQUEST, FORBIDDEN, NOT_FOUND, OVERLOADED = 1, 18, 8, 3


class Checkpoint(unittest.TestCase):
    def start(self, count):
        self.cluster = Cluster(count, SETTINGS)
        self.addCleanup(self.cluster.close)
        return self.cluster.start()

    def stop_and_lose_view(self, name):
        self.cluster[name].kill_all()
        lose_view(self.cluster[name])

    def test_a_view_that_was_deleted(self):
        cluster = self.start(3)
        fill(cluster["n1"], "first")
        for name, node in cluster.nodes.items():
            node.ctl("append", "--stream", "audit", name, "and more")
        log = log_of(cluster, "n1")
        trim_all(cluster, log, 1000)
        before = wait_equal_views(cluster)
        self.stop_and_lose_view("n2")
        fill(cluster["n1"], "meanwhile", 1)
        cluster["n2"].start()
        after = wait_equal_views(cluster)
        self.assertEqual(len(after), len(before) + 100)
        self.assertEqual(after["c7"]["counter"], before["c7"]["counter"] + 1)
        self.assertTrue(cluster["n2"].log_lines("the view was merged with a member's"))
        wanted = sorted(b"n1\nand more\nn2\nand more\nn3\nand more\n".split(b"\n"))
        for node in cluster.nodes.values():
            def shows_all(node=node):
                lines = node.ctl("--format", "raw", "read", "--stream", "audit").stdout.split(b"\n")
                return sorted(lines) == wanted
            wait_for(shows_all, f"the stream at {node.name}")
        wait_for(lambda: state_of(self, cluster["n2"]) == "following", "n2 to follow")
        wait_let_go(cluster, log)
        fill(cluster["n2"], "and on", 1)
        self.assertEqual(wait_equal_views(cluster)["c7"]["counter"], after["c7"]["counter"] + 1)
        for node in cluster.nodes.values():
            self.assertEqual(node.stop(), 0)
            node.spawn()
        for node in cluster.nodes.values():
            node.wait_ready()
        self.assertEqual(wait_equal_views(cluster)["c7"]["counter"], after["c7"]["counter"] + 1)
        self.assertEqual(cluster["n2"].log_lines("a log holds other entries"), [])

    def test_nobody_can_help_and_all_else_goes_on(self):
        cluster = self.start(2)
        fill(cluster["n1"], "first")
        log = log_of(cluster, "n1")
        trim_all(cluster, log, 1000)
        before = wait_equal_views(cluster)
        self.stop_and_lose_view("n2")
        cluster["n1"].kill_all()
        cluster["n2"].start()
        def what_it_lacks():
            info = view_info(self, cluster["n2"]) or {}
            text = info.get(12, "") if STATES[info.get(7, 0)] == "lacking" else ""
            return text if "; n1: " in text else None  # which was asked
        lacking = wait_for(what_it_lacks, "n2 to say what it lacks")
        self.assertIn(f"log {log} behind LSN 0 is trimmed before {first_lsn(cluster['n2'], log)}; n1: ", lacking)
        self.assertIn("start a member whose view has it", lacking)
        wait_for(lambda: cluster["n2"].log_lines("the view lacks entries, and no member gives them"), "n2's log to say so")
        file = os.path.join(cluster["n2"].dir, "session")
        cluster["n2"].ctl("kv", "put", "--session", file, "own", "value")
        self.assertEqual(cluster["n2"].ctl("kv", "get", "--session", file, "own").stdout, b"value\n")
        self.assertEqual(set(rows(cluster["n2"])), {"own"})
        cluster["n1"].start()
        after = wait_equal_views(cluster)
        del after["own"]
        self.assertEqual(after, before)


class Refusals(unittest.TestCase):
    """What a querysvc that is asked for its view refuses."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node(SETTINGS).start()
        write(cls.node, ["put k v"])

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def caller(self):
        return Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")

    def refused(self, code, body):
        kind, answer = self.caller().ask(CHECKPOINT, body)
        self.assertEqual((kind, answer[1]), (ERROR, code), answer)

    def test_malformed_questions(self):
        for body in ({}, {1: 4}, {1: "look"}, {1: OPEN, 4: 1}, {1: OPEN, 3: "n2"}, {1: ROWS, 3: "n2", 4: 0},
                     {1: OPEN, 3: "n" * 65, 4: 1}, {1: ROWS, 3: "n2", 4: 1, 5: bytes(5000)}):
            kind, answer = self.caller().ask(CHECKPOINT, body)
            self.assertEqual(kind, ERROR, (body, answer))
            self.assertIn(answer[1], (BAD_REQUEST, 2), answer)

    def test_from_afar(self):
        caller = Caller(self, (self.node.host, self.node.port), (self.node.host, self.node.port + 1))
        kind, answer = caller.ask(CHECKPOINT, {1: LOOK})
        self.assertEqual(kind, ERROR)
        self.assertIn("only for clients on the node itself", answer[2])

    def test_a_checkpoint_that_is_not_there(self):
        self.refused(NOT_FOUND, {1: ROWS, 3: "n2", 4: 99})

    def test_two_at_a_time_one_for_each_member(self):
        caller = self.caller()

        def ask(body):
            kind, answer = caller.ask(CHECKPOINT, body)
            return answer if kind == CHECKPOINT_REPLY else answer[1]
        opened = ask({1: OPEN, 3: "n2", 4: 1})
        self.assertEqual(opened[1], ask({1: LOOK})[1], "the vector")
        self.assertEqual(ask({1: OPEN, 3: "n2", 4: 1}), opened, "the same again")
        self.assertGreaterEqual(ask({1: OPEN, 3: "n3", 4: 1})[2], 1)
        self.assertEqual(ask({1: OPEN, 3: "n4", 4: 1}), OVERLOADED)
        self.assertEqual(sorted(checkpoint_files(self.node)), ["out-0", "out-1"])
        piece = ask({1: ROWS, 3: "n2", 4: 1})
        self.assertIn(b"Kk", piece[3])
        self.assertFalse(piece.get(5, False))
        self.assertIsInstance(ask({1: OPEN, 3: "n2", 4: 2}), dict)
        self.assertEqual(ask({1: ROWS, 3: "n2", 4: 1}), NOT_FOUND, "another one took its place")
        log = self.node.json("status")["log"]
        self.assertEqual(sorted(checkpoint_holds(self.node, log)), ["checkpoint n2", "checkpoint n3"])
        for name, number in (("n2", 2), ("n3", 1), ("n3", 1)):
            self.assertEqual(ask({1: CLOSE, 3: name, 4: number}), {})
        wait_for(lambda: checkpoint_holds(self.node, log) == [], "the holds to go")
        wait_for(lambda: checkpoint_files(self.node) == [], "the files to go")

    def test_what_is_left_after_a_kill_is_removed(self):
        kind, _ = self.caller().ask(CHECKPOINT, {1: OPEN, 3: "n2", 4: 1})
        self.assertEqual((kind, checkpoint_files(self.node)), (CHECKPOINT_REPLY, ["out-0"]))
        self.node.kill("querysvc")
        self.node.wait_ready()
        wait_for(lambda: checkpoint_files(self.node) == [], "it to be removed")


if __name__ == "__main__":
    unittest.main()
