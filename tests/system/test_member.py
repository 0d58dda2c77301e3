"""membersvc of a real node, by its own link: who is in the cluster, joins and leaves, events across restarts; its file
when it is damaged, foreign, newer, or the disk is full."""
import os
import shutil
import signal
import subprocess
import unittest

from caller import Caller
from shanghai import BIN, Node, wait_for
from test_disk_full import SmallDisk, why_no_mounts

ERROR, NODES, NODES_REPLY, NODE_JOIN, NODE_JOIN_REPLY, NODE_LEAVE, NODE_LEAVE_REPLY = 3, 96, 97, 99, 100, 101, 102
EVENTS, EVENTS_REPLY = 103, 104
DISK_FULL, BAD_REQUEST, CONFLICT, ALREADY_MEMBER, NOT_MEMBER = 4, 1, 6, 15, 16
FOUNDED, JOINING, LEFT = 14, 1, 6
NO_SERIES = bytes(16)
SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"


class Member(unittest.TestCase):
    def start(self, node=None):
        self.node = node or Node(supervisor=SUPERVISOR)
        self.addCleanup(self.node.close)
        self.node.start()
        return self.node

    def caller(self):
        run = self.node.run
        return Caller(self, f"{run}/member.in", f"{run}/member.out")

    def nodes(self):
        kind, body = self.caller().ask(NODES, {})
        self.assertEqual(kind, NODES_REPLY)
        return body

    def events(self, after=0, series=NO_SERIES, wait_ms=0, most=0, caller=None):
        """(series, first number kept, [[number, kind, id]])"""
        kind, body = (caller or self.caller()).ask(EVENTS, {1: series, 2: after, 3: wait_ms, 4: most})
        self.assertEqual(kind, EVENTS_REPLY)
        return body[1], body[2], [[event[1], event[2], event[4]] for event in body[3]]

    def member_path(self):
        return os.path.join(self.node.data, "member")

    def wait_founded(self):
        return wait_for(lambda: self.events(wait_ms=1000)[2], "the first event")

    def join(self, name, port=7000):
        return self.caller().ask(NODE_JOIN, {1: name, 2: "127.0.0.1", 3: port})

    def kill(self):
        old = self.node.kill("membersvc")
        wait_for(lambda: self.node.pid("membersvc") != old, "another membersvc")

    def test_a_node_alone_founds_its_cluster_and_says_so(self):
        self.start()
        self.assertEqual(self.wait_founded()[0][1:], [FOUNDED, "n1"])
        body = self.nodes()
        self.assertEqual((body[1], body[2], body[3]), ("test", "n1", 1))
        self.assertEqual([info[1][1] for info in body[4]], ["n1"])
        self.assertTrue(body[4][0][2])
        self.assertEqual(body[7]["malformed"], 0)
        wait_for(lambda: self.node.tree()["membersvc"]["status"] == "1 member: 1 up", "its status")

    def test_joins_and_leaves_are_on_disk_when_they_are_answered(self):
        self.start()
        self.wait_founded()
        self.assertEqual(self.join("n2"), (NODE_JOIN_REPLY, {1: 2}))
        self.kill()
        self.assertEqual([info[1][1] for info in self.nodes()[4]], ["n1", "n2"])
        kind, body = self.join("n2")
        self.assertEqual((kind, body[1]), (ERROR, ALREADY_MEMBER))
        kind, body = self.caller().ask(NODE_LEAVE, {1: "n2"})
        self.assertEqual((kind, body[1]), (NODE_LEAVE_REPLY, 2))
        self.kill()
        self.assertEqual([info[1][3] for info in self.nodes()[4]], [1, 5])
        for what, message, code in ((NODE_LEAVE, {1: "n2"}, NOT_MEMBER), (NODE_LEAVE, {1: "n1"}, CONFLICT),
                                    (NODE_LEAVE, {1: "n\0"}, BAD_REQUEST), (NODE_JOIN, {1: "n3"}, BAD_REQUEST),
                                    (NODE_JOIN, {}, BAD_REQUEST), (999, {}, BAD_REQUEST)):
            kind, body = self.caller().ask(what, message)
            self.assertEqual((kind, body[1]), (ERROR, code), message)

    def test_each_event_comes_once_in_order_also_across_kills(self):
        self.start()
        seen = self.wait_founded()
        series, first, _ = self.events()
        self.assertEqual(first, 1)
        for i in range(2, 8):
            self.assertEqual(self.join(f"n{i}", 7000 + 10 * i), (NODE_JOIN_REPLY, {1: 2}))
            if i % 2 == 0:
                self.kill()
            while True:
                again, _, events = self.events(seen[-1][0], series)
                self.assertEqual(again, series)
                seen += events
                if not events:
                    break
        self.assertEqual([number for number, _, _ in seen], list(range(1, len(seen) + 1)))
        self.assertEqual([name for _, kind, name in seen if kind == JOINING], [f"n{i}" for i in range(2, 8)])
        self.assertEqual(self.events(0, series, most=2)[2], seen[:2])

    def test_a_long_poll_waits_for_the_next_event(self):
        self.start()
        last = self.wait_founded()[-1][0]
        series = self.events()[0]
        waiting = self.caller()
        waiting.send(EVENTS, {1: series, 2: last, 3: 30000})
        self.assertEqual(self.events(last, series, wait_ms=1)[2], [])  # the wait is over, for this one
        self.join("n2")
        _, kind, body = waiting.take()
        self.assertEqual((kind, [[event[2], event[4]] for event in body[3]]), (EVENTS_REPLY, [[JOINING, "n2"]]))

    def test_a_damaged_file_is_put_aside_and_events_begin_anew(self):
        self.start()
        self.wait_founded()
        series = self.events()[0]
        self.assertEqual(self.node.stop(), 0)
        with open(self.member_path(), "r+b") as file:
            file.seek(40)
            file.write(b"\xff\xff")
        with open(self.member_path(), "rb") as file:
            damaged = file.read()
        self.node.start()
        aside = [name for name in os.listdir(os.path.join(self.node.data, "quarantine")) if name.startswith("member-")]
        self.assertEqual(len(aside), 1)
        with open(os.path.join(self.node.data, "quarantine", aside[0]), "rb") as file:
            self.assertEqual(file.read(), damaged)
        self.assertTrue(self.node.log_lines("data/member is damaged"))
        self.wait_founded()
        again, _, events = self.events(77, series, wait_ms=20000)
        self.assertNotEqual(again, series)
        self.assertEqual(events[0], [1, FOUNDED, "n1"])

    def run_alone(self):
        return subprocess.run([os.path.join(BIN, "membersvc"), "--config", self.node.config, "--node", "n1"],
                              capture_output=True, check=False, timeout=60)

    def test_foreign_and_newer_state_is_refused_and_left_alone(self):
        self.start()
        self.wait_founded()
        self.assertEqual(self.node.stop(), 0)
        with open(self.member_path(), "rb") as file:
            good = file.read()
        with open(self.node.config, encoding="ascii") as file:
            topology = file.read()
        for data, config, said in ((good[:6] + b"\0\2" + good[8:], topology, b"written by a newer version"),
                                   (good, topology.replace("name: test", "name: other"), b"another cluster")):
            with open(self.member_path(), "wb") as file:
                file.write(data)
            with open(self.node.config, "w", encoding="ascii") as file:
                file.write(config)
            done = self.run_alone()
            self.assertEqual(done.returncode, 78, done.stderr)
            self.assertIn(said, done.stderr)
            with open(self.member_path(), "rb") as file:
                self.assertEqual(file.read(), data)
        with Node(supervisor=SUPERVISOR) as other:  # another log of the same node
            other.start()
            wait_for(lambda: os.path.exists(os.path.join(other.data, "member")), "its file")
            self.assertEqual(other.stop(), 0)
            shutil.copy(os.path.join(other.data, "member"), self.member_path())
        with open(self.node.config, "w", encoding="ascii") as file:
            file.write(topology)
        done = self.run_alone()
        self.assertEqual((done.returncode, b"another log" in done.stderr), (78, True), done.stderr)
        self.assertFalse(os.path.exists(os.path.join(self.node.data, "quarantine")))

    def test_times_are_taken_over_by_a_signal(self):
        self.start()
        self.wait_founded()
        self.assertEqual(self.join("n2")[0], NODE_JOIN_REPLY)
        sent = self.nodes()[7]["sent"]
        with open(self.node.config, "a", encoding="ascii") as file:
            file.write("member: {heartbeat_interval: 50ms, suspect_after: 100ms, down_after: 150ms}\n")
        os.kill(self.node.pid("membersvc"), signal.SIGHUP)
        wait_for(lambda: self.nodes()[7]["sent"] > sent + 50, "heartbeats each 50 ms")

    @unittest.skipIf(os.geteuid() != 0, "needs root, for a small file system of its own")
    def test_a_full_disk_refuses_changes_and_keeps_the_rest_working(self):
        reason = why_no_mounts()
        if reason:
            self.skipTest(reason)
        self.start(SmallDisk())
        self.wait_founded()
        self.assertEqual(self.join("n2")[0], NODE_JOIN_REPLY)
        ballast = os.path.join(self.node.data, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        pid = self.node.pid("membersvc")
        waiting = self.caller()
        waiting.send(NODE_JOIN, {1: "n3", 2: "127.0.0.1", 3: 7010})  # found full while it is written: no answer yet
        wait_for(lambda: self.node.log_lines("what changes among the members is not kept"), "the full disk to be noticed")
        kind, body = self.join("n4", 7020)
        self.assertEqual((kind, body[1]), (ERROR, DISK_FULL))
        self.assertEqual([info[1][1] for info in self.nodes()[4]], ["n1", "n2", "n3"])
        self.assertNotIn("n3", [name for _, _, name in self.events()[2]])
        wait_for(lambda: "disk full" in self.node.tree()["membersvc"]["status"], "its status")
        waiting.send(NODES, {})
        self.assertEqual(waiting.take()[:2], [2, NODES_REPLY])  # and not that of the join
        os.unlink(ballast)
        self.assertEqual(waiting.take(), [1, NODE_JOIN_REPLY, {1: 2}])
        wait_for(lambda: "n3" in [name for _, _, name in self.events()[2]], "the event")
        self.assertEqual(self.node.pid("membersvc"), pid)


if __name__ == "__main__":
    unittest.main()
