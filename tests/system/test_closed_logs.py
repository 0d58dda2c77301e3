"""Logs of nodes that are gone: closed where all members hold them, dropped after retention, and not there again."""
import os
import signal
import unittest
import uuid

from caller import Caller
from cluster import Cluster
from logs import Appender, log_of, positions, read_lines, wait_equal
from segments import Segment
from shanghai import Node, wait_for
from test_copies import COPY_APPEND, COPY_APPEND_REPLY, ERROR, LOGS, LOG_TRIM, LOG_TRIM_REPLY

LOG_GONE, LOG_GONE_REPLY, CLOSED_LOGS, CLOSED_LOGS_REPLY = 58, 59, 60, 61
BAD_REQUEST, CONFLICT, NOT_FOUND, TRIMMED, UNAVAILABLE = 1, 6, 8, 9, 12
SLOTS = 64
TIMES = "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}"
WAL = "wal: {segment_size: 1MiB, disk_reserve: 1MiB%s}\n"
FOR_EVER, SHORT = WAL % "", WAL % ", retention_age: 1s"


def append(node, count, *options, tag=""):
    appender = Appender(node, count, *options, tag=tag)
    appender.start()
    assert appender.summary()["entries"] == count
    return appender.lines


def set_retention(node, wal):
    with open(node.config, encoding="ascii") as file:
        lines = file.read().splitlines(True)
    with open(node.config, "w", encoding="ascii") as file:
        file.writelines(wal if line.startswith("wal:") else line for line in lines)
    if node.process is not None:
        node.process.send_signal(signal.SIGHUP)


def folder(node, log):
    return os.path.join(node.data, "log", log)


def followed(node, log):
    """The row of a log; {} when the node keeps no copy of it, None without an answer."""
    answer = node.try_json("replicas")
    if answer is None:
        return None
    return next((row for row in answer["followed"] if row["log"] == log), {})


def dropped(node, log):
    """Where it is closed, if the node has dropped it; None: it has not."""
    answer = node.try_json("replicas") or {"closed": []}
    return next((row["lsn"] for row in answer["closed"] if row["log"] == log), None)


def watermarks(cluster, name):
    """Of all logs that any member holds, as that node knows it."""
    return {mark["log"] for row in cluster.rows(name).values() if row["status"] != "left" for mark in row["watermarks"]}


class ClosedLogs(unittest.TestCase):
    def wait_closed(self, cluster, log, lsn, names=None):
        """Closed, and still there."""
        for name in names or cluster.nodes:
            def closed(name=name):
                row = followed(cluster[name], log) or {}
                return row if row.get("closed") else None
            self.assertEqual(wait_for(closed, f"{name} to see it closed", 60, 0.1)["lsn"], lsn)
            self.assertTrue(cluster[name].json("log", "info", "--log", log)["closed"])
            self.assertTrue(os.path.isdir(folder(cluster[name], log)))

    def wait_dropped(self, cluster, log, lsn, names=None):
        """From the disk, from the vectors, and told as closed."""
        names = names or list(cluster.nodes)
        for name in names:
            node = cluster[name]
            wait_for(lambda node=node: dropped(node, log) == lsn, f"{name} to drop it", 60, 0.1)
            wait_for(lambda node=node: not os.path.exists(folder(node, log)), f"the folder to leave {name}", 30, 0.1)
            wait_for(lambda node=node: followed(node, log) == {}, f"{name} not to follow it", 30, 0.1)
        for name in names:
            wait_for(lambda name=name: cluster.rows(name) and log not in watermarks(cluster, name),
                     f"the vectors of {name}", 30, 0.1)

    def replace(self, cluster, name):
        """Another disk."""
        if cluster[name].process is not None:
            cluster[name].kill_all()
        cluster[name].wipe()
        cluster[name].start()
        cluster["n1"].ctl("node", "join", name, "--replace")

    def test_the_log_of_a_replaced_node_leaves_after_retention_and_stays_away(self):
        with Cluster(settings=FOR_EVER + TIMES).start() as cluster:
            for node in cluster.nodes.values():
                append(node, 2000, "--ack", "all")
            old = log_of(cluster, "n3")
            self.replace(cluster, "n3")
            cluster.wait_healthy()
            self.assertEqual(wait_equal(cluster)[old], 2000)
            self.wait_closed(cluster, old, 2000)
            text = cluster["n1"].ctl("log", "info", "--log", old).stdout
            self.assertIn(b"at LSN 2,000: nobody extends it", text)
            for node in cluster.nodes.values():
                set_retention(node, SHORT)
            self.wait_dropped(cluster, old, 2000)
            done = cluster["n2"].ctl("log", "info", "--log", old, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"closed at LSN 2000", done.stderr)
            self.assertIn(old.encode(), cluster["n1"].ctl("replicas").stdout)
            for node in cluster.nodes.values():
                self.assertEqual(node.stop(), 0)
                node.spawn()
            for node in cluster.nodes.values():
                node.wait_ready()
            cluster.wait_healthy()
            for node in cluster.nodes.values():
                append(node, 10, "--ack", "all", tag="more")
            self.assertEqual(len(wait_equal(cluster)), 3)
            self.wait_dropped(cluster, old, 2000)

    def test_a_member_that_is_down_keeps_it_until_it_has_it(self):
        with Cluster(settings=SHORT + TIMES).start() as cluster:
            first = append(cluster["n3"], 1000, "--ack", "all")
            old = log_of(cluster, "n3")
            cluster["n2"].kill_all()
            second = append(cluster["n3"], 1000, "--ack", "quorum", tag="second")
            wait_for(lambda: positions(cluster, "n1").get(old) == 2000, "n1 to have it", 30, 0.1)
            self.replace(cluster, "n3")
            wait_for(lambda: positions(cluster, "n3").get(old) == 2000, "the new n3 to have it", 60, 0.1)

            def held(name):
                info = cluster[name].try_json("log", "info", "--log", old)
                return info and 0 < {row["name"]: row["lsn"] for row in info["holds"]}.get("n2", 0) <= 1001
            for name in ("n1", "n3"):
                wait_for(lambda name=name: held(name), f"the hold for n2 at {name}", 30, 0.1)
                self.assertFalse(wait_for(lambda name=name: followed(cluster[name], old), f"{name} to answer")["closed"])
                self.assertEqual(read_lines(cluster[name], old), first + second)
            cluster["n2"].start()
            self.wait_dropped(cluster, old, 2000)

    def test_a_node_that_left_and_joins_again_is_followed_again(self):
        with Cluster(settings=SHORT + TIMES).start() as cluster:
            append(cluster["n3"], 1000, "--ack", "all")
            old = log_of(cluster, "n3")
            cluster["n1"].ctl("node", "leave", "n3")
            self.wait_dropped(cluster, old, 1000, ["n1", "n2"])
            cluster["n1"].ctl("node", "join", "n3", "--host", cluster["n3"].host, "--port", str(cluster["n3"].port))
            wait_for(lambda: cluster["n3"].json("status")["writable"], "n3 to take writes", 30, 0.1)
            append(cluster["n3"], 1000, "--ack", "all", "--ack-timeout", "30s", tag="again")
            self.assertEqual(wait_equal(cluster)[old], 2000)
            for node in cluster.nodes.values():
                wait_for(lambda node=node: (node.try_json("replicas") or {}).get("closed") == [],
                         f"{node.name} to call no log closed")

    def test_a_trim_by_hand_up_to_its_end_drops_it(self):
        with Cluster(2, settings=FOR_EVER + TIMES).start() as cluster:
            append(cluster["n2"], 1000, "--ack", "all")
            old = log_of(cluster, "n2")
            node = cluster["n1"]

            def trim(before, *options):
                return node.json("log", "trim", "--log", old, "--before", str(before), *options)
            self.assertFalse(trim(1001, "--dry-run")["drops"], "n2 may extend it")
            node.ctl("node", "leave", "n2")
            self.wait_closed(cluster, old, 1000, ["n1"])
            self.assertFalse(trim(1000)["drops"], "the last entry is to stay")
            self.assertTrue(trim(1001, "--dry-run")["drops"])
            self.assertTrue(os.path.isdir(folder(node, old)))
            self.assertTrue(trim(1001)["drops"])
            self.wait_dropped(cluster, old, 1000, ["n1"])
            done = node.ctl("log", "trim", "--log", old, "--before", "1001", check=False)
            self.assertIn(b"closed at LSN 1000", done.stderr)


class ByMessages(unittest.TestCase):
    """walsvc is told that a log is closed, as its replsvc tells it."""

    def setUp(self):
        with Node() as origin:
            origin.start()
            origin.ctl("append", "--batch", "10", "-", input=b"".join(b"%d\n" % i for i in range(100)))
            directory = origin.log_dir()
            origin.stop()
            self.name = os.path.basename(directory)
            self.log = uuid.UUID(self.name).bytes
            self.segment = Segment(os.path.join(directory, f"{1:020}.seg"))
        self.node = Node(supervisor="supervisor: {intensity: 1000, period: 60s, backoff: false}")
        self.addCleanup(self.node.close)
        self.node.start()
        self.node.stop_service("replsvc")  # it would tell that the log is none of a member's, and closed
        self.wal = self.caller()

    def caller(self):
        return Caller(self, f"{self.node.run}/wal.in", f"{self.node.run}/wal.out")

    def append(self):
        return self.wal.ask(COPY_APPEND, {1: self.log, 2: 0, 3: self.segment.data})

    def gone(self, log=None, **more):
        place = dict(self.place, **more)
        return self.wal.ask(LOG_GONE, {1: log or self.log, 2: True, 3: place["end"], 4: place["lsn"], 5: place["checksum"]})

    def begin(self):
        kind, body = self.append()
        self.assertEqual(kind, COPY_APPEND_REPLY, body)
        self.place = {"end": body[2], "lsn": body[3], "checksum": body[4]}

    def drop(self):
        self.assertEqual(self.gone()[0], LOG_GONE_REPLY)

        def trim():
            """Asked again, since the view may take hold of it between the answer and the drop."""
            if self.is_held():
                kind, body = self.wal.ask(LOG_TRIM, {1: self.log, 2: self.place["lsn"] + 1})
                self.assertTrue(kind == LOG_TRIM_REPLY or body[1] in (TRIMMED, UNAVAILABLE), body)  # the drop is under way
            return [row[0] for row in self.closed()] == [self.log]
        wait_for(trim, "the register")
        wait_for(lambda: not self.is_held(), "the copy to leave")
        wait_for(lambda: not os.path.exists(folder(self.node, self.name)), "its folder to leave")

    def closed(self):
        kind, body = self.wal.ask(CLOSED_LOGS, {})
        self.assertEqual(kind, CLOSED_LOGS_REPLY)
        return body[2]

    def is_held(self):
        return self.log in [row[0] for row in self.wal.ask(LOGS, {2: 0, 3: 0})[1][3]]

    def refused(self, answer, code, text):
        kind, body = answer
        self.assertEqual((kind, body[1]), (ERROR, code), body)
        self.assertIn(text, body[2])

    def test_what_cannot_be_is_refused(self):
        self.begin()
        for wrong in ({"end": self.place["end"] + 1}, {"lsn": 99}, {"checksum": self.place["checksum"] ^ 1}):
            self.refused(self.gone(**wrong), CONFLICT, "ends at another place")
        self.refused(self.gone(log=bytes(15) + b"\1"), NOT_FOUND, "does not hold that log")
        own = uuid.UUID(self.node.json("status")["log"]).bytes
        for log in (own, bytes(16)):
            self.refused(self.gone(log=log), BAD_REQUEST, "not the log of another node")
        self.refused(self.wal.ask(LOG_GONE, {2: True}), BAD_REQUEST, "well-formed")
        self.assertFalse(self.node.json("log", "info", "--log", self.name)["closed"])
        self.assertEqual(self.gone()[0], LOG_GONE_REPLY)
        self.assertTrue(self.node.json("log", "info", "--log", self.name)["closed"])

    def test_a_dropped_log_is_refused_until_it_lives_again(self):
        self.begin()
        self.drop()
        self.assertEqual(self.closed()[0][1:4], [self.place["end"], self.place["lsn"], self.place["checksum"]])
        self.refused(self.append(), TRIMMED, "closed at LSN 100")
        self.assertEqual(self.gone()[0], LOG_GONE_REPLY, "which it is already")
        pid = self.node.kill("walsvc")
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")
        self.wal = self.caller()
        self.assertFalse(os.path.exists(folder(self.node, self.name)))
        self.refused(self.append(), TRIMMED, "closed at LSN 100")
        self.assertEqual(self.wal.ask(LOG_GONE, {1: self.log})[0], LOG_GONE_REPLY)
        self.assertEqual(self.closed(), [])
        self.begin()

    def test_a_folder_that_a_crash_left_goes_at_the_next_start(self):
        self.begin()
        self.drop()
        pid = self.node.kill("walsvc", signal.SIGSTOP)
        os.mkdir(folder(self.node, self.name))
        for name in ("mark", f"{1:020}.seg", "holds"):
            with open(os.path.join(folder(self.node, self.name), name), "wb") as file:
                file.write(b"what is left")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")
        wait_for(lambda: not os.path.exists(folder(self.node, self.name)), "the folder to leave")
        self.wal = self.caller()
        self.assertFalse(self.is_held())
        self.assertEqual([row[0] for row in self.closed()], [self.log])

    def test_what_is_dropped_gives_its_place_back(self):
        for _ in range(SLOTS + 2):
            self.begin()
            self.drop()
            self.assertEqual(self.wal.ask(LOG_GONE, {1: self.log})[0], LOG_GONE_REPLY)


if __name__ == "__main__":
    unittest.main()
