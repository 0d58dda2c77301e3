"""walsvc keeps the copy of another node's log: bytes as they are in that node's files go in by messages, and come out the
same, through kills, restarts and trims."""
import hashlib
import json
import os
import signal
import subprocess
import unittest
import uuid

from caller import Caller
from first_life import FirstLife, wait_restarted
from segments import read_segments
from shanghai import BIN, Node, wait_for

ERROR, HOLD, HOLD_REPLY, LOG_TRIM, LOG_TRIM_REPLY, WAL_INFO, WAL_INFO_REPLY = 3, 22, 23, 20, 21, 28, 29
REPAIR, REPAIR_REPLY, ACCEPT_LOSS, LOGS, LOGS_REPLY, COPY_APPEND, COPY_APPEND_REPLY = 24, 25, 26, 48, 49, 50, 51
BAD_REQUEST, CONFLICT, NOT_FOUND = 1, 6, 8
SETTINGS = "wal:\n  segment_size: 4MiB"
LINES = 120000


def has_failpoints():
    out = subprocess.run([os.path.join(BIN, "shanghaictl"), "--format", "json", "version"], capture_output=True, check=True)
    return json.loads(out.stdout).get("failpoints", False)


class CopyTest(unittest.TestCase):
    """A log to copy from, whose node has stopped, and what a follower asks walsvc."""

    @classmethod
    def setUpClass(cls):
        with Node(settings=SETTINGS) as origin:
            origin.start()
            origin.ctl("append", "--batch", "100", "-", input=b"".join(b"%0100d\n" % i for i in range(LINES)))
            directory = origin.log_dir()
            origin.stop()
            cls.uuid = os.path.basename(directory)
            cls.segments = read_segments(directory)
        assert len(cls.segments) >= 4
        cls.log = uuid.UUID(cls.uuid).bytes
        cls.end = cls.segments[-1].position + len(cls.segments[-1].data)

    def use(self, node):
        self.node = node
        self.directory = os.path.join(node.data, "log", self.uuid)
        self.wal = self.caller()

    def caller(self):
        return Caller(self, f"{self.node.run}/wal.in", f"{self.node.run}/wal.out")

    def append(self, position, data, **more):
        body = {1: self.log, 2: position, 3: data}
        if more.get("anew"):
            body[4] = True
        return self.wal.ask(COPY_APPEND, body)

    def fill(self, segments, most=1 << 18):
        for segment in segments:
            for position, data in segment.pieces(most):
                kind, body = self.append(position, data)
                self.assertEqual((kind, body[2]), (COPY_APPEND_REPLY, position + len(data)))
        return body

    def places(self, wal=None):
        """How far the logs are durable: {uuid: (end, LSN, checksum, first LSN)}, the node's own one first."""
        kind, body = (wal or self.wal).ask(LOGS, {2: 0, 3: 0})
        self.assertEqual(kind, LOGS_REPLY)
        return {str(uuid.UUID(bytes=log[0])): tuple(log[1:5]) for log in body[3]}

    def check_files(self, segments):
        for segment in segments:
            with open(os.path.join(self.directory, segment.name), "rb") as file:
                data = file.read()
            self.assertEqual(hashlib.sha256(data[:len(segment.data)]).digest(), hashlib.sha256(segment.data).digest())
            self.assertEqual(data[len(segment.data):].strip(b"\0"), b"")
        for segment in segments[:-1]:
            path = os.path.join(self.directory, segment.name)
            wait_for(lambda p=path, s=segment: os.path.getsize(p) == len(s.data), "a sealed segment to be cut")



class Copies(CopyTest):
    def setUp(self):
        node = Node(settings=SETTINGS)
        self.addCleanup(node.close)
        self.use(node.start())

    def verified(self):
        out = self.node.ctl("--format", "json", "log", "verify", "--data", self.node.data)
        return {log["log"]: log for log in json.loads(out.stdout)["each_log"]}

    def wait_restarted(self, pid):
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")
        self.wal = self.caller()

    def test_a_copy_is_the_same_bytes_through_kills_and_restarts(self):
        for count, segment in enumerate(self.segments):
            self.fill([segment], (1 << 14) << (2 * count))
            pid = self.node.kill("walsvc", signal.SIGKILL)
            self.wait_restarted(pid)
            self.assertEqual(self.places()[self.uuid][0], segment.position + len(segment.data))
        self.check_files(self.segments)
        self.node.stop()
        self.node.start()
        self.wal = self.caller()
        places = self.places()
        own, copy = self.node_log(), self.uuid
        self.assertEqual(list(places), [own, copy])
        self.assertEqual(places[copy][:2] + places[copy][3:], (self.end, LINES, 1))
        self.assertEqual(self.verified()[copy]["entries"], LINES)
        self.assertEqual((self.verified()[copy]["copy"], self.verified()[own]["copy"]), (True, False))
        text = self.node.ctl("log", "verify", "--data", self.node.data).stdout.decode()
        self.assertIn(f"{copy}  copy", text)
        self.assertIn(f"{own}  own", text)

    def node_log(self):
        with open(os.path.join(self.node.data, "node"), encoding="ascii") as file:
            text = file.read()
        return next(name for name in os.listdir(os.path.join(self.node.data, "log")) if name in text)

    def test_the_own_log_goes_on_beside_a_copy_and_the_poll_tells_both(self):
        before = self.places()
        version = self.wal.ask(LOGS, {2: 0, 3: 0})[1][2]
        boot = self.wal.ask(LOGS, {2: 0, 3: 0})[1][1]
        asker = self.caller()
        asker.send(LOGS, {1: boot, 2: version, 3: 30000})
        self.node.ctl("append", "one")
        _, kind, body = asker.take()
        self.assertEqual(kind, LOGS_REPLY)
        self.assertGreater(body[2], version)
        self.assertGreater(body[3][0][1], before[self.node_log()][0])
        asker.send(LOGS, {1: boot, 2: body[2], 3: 30000})
        reply = self.fill(self.segments[:1])
        told = asker.take()[2][3]
        self.assertEqual(told[1][0], self.log)
        self.assertEqual(self.places()[self.uuid][:3], (reply[2], reply[3], reply[4]))

    def test_copies_go_on_while_the_node_may_not_write(self):
        subprocess.run([os.path.join(BIN, "link_permit"), f"ipc://{self.node.run}/wal", "refuse", "for a test"],
                       capture_output=True, check=True, timeout=60)
        self.assertNotEqual(self.node.ctl("append", "one", check=False).returncode, 0)
        self.fill(self.segments[:1])

    def test_other_nodes_hear_of_copies(self):
        reply = self.fill(self.segments[:1])

        def told():
            nodes = (self.node.try_json("nodes") or {"nodes": []})["nodes"]
            marks = [mark for node in nodes for mark in node["watermarks"]]
            return any(mark["log"] == self.uuid and mark["lsn"] == reply[3] for mark in marks)
        wait_for(told, "the copy's watermark in the list of nodes")

    def test_holds_trims_questions_and_repairs_name_the_copy(self):
        self.fill(self.segments)
        third = self.segments[2]
        kind, body = self.wal.ask(HOLD, {1: self.log, 2: "n9", 3: 1, 4: third.base, 5: 0})
        self.assertEqual((kind, body[1]), (HOLD_REPLY, self.log), body)

        def trim():
            kind, body = self.wal.ask(LOG_TRIM, {1: self.log, 2: self.segments[3].base})
            self.assertEqual((kind, body[1]), (LOG_TRIM_REPLY, self.log), body)
            return body[2] == third.base
        wait_for(trim, "the view to let go of the first two segments")
        wait_for(lambda: self.places()[self.uuid][3] == third.base, "the poll to tell the first LSN")
        self.assertFalse(os.path.exists(os.path.join(self.directory, self.segments[0].name)))
        kind, body = self.wal.ask(WAL_INFO, {1: self.log})
        self.assertEqual((kind, body[1]), (WAL_INFO_REPLY, self.log), body)
        kind, body = self.wal.ask(ACCEPT_LOSS, {1: self.log, 2: third.base, 3: third.base})
        self.assertEqual((kind, body[1]), (ERROR, BAD_REQUEST))
        nobody = bytes(15) + b"\1"
        for kind, body in ((HOLD, {2: "x", 3: 1, 4: 1}), (LOG_TRIM, {2: 1}), (WAL_INFO, {2: 1}),
                           (REPAIR, {2: 1, 3: 64, 4: b"x"}), (ACCEPT_LOSS, {2: 1, 3: 1})):
            self.assertEqual(self.wal.ask(kind, {1: nobody, **body})[1][1], NOT_FOUND)
        path = os.path.join(self.directory, third.name)
        frame = third.starts[5]
        with open(path, "r+b") as file:
            file.seek(frame + 20)
            file.write(b"\xff" * 8)
        kind, body = self.wal.ask(REPAIR, {1: self.log, 2: third.base, 3: frame, 4: third.data[frame:third.starts[6]]})
        self.assertEqual((kind, body[1]), (REPAIR_REPLY, self.log), body)
        self.check_files(self.segments[2:])

    def test_bad_appends_are_refused_and_store_nothing(self):
        own = uuid.UUID(self.node_log()).bytes
        first = self.segments[0]
        position, data = next(first.pieces(1 << 14))
        self.assertEqual(self.wal.ask(COPY_APPEND, {1: own, 2: position, 3: data})[1][1], BAD_REQUEST)
        self.assertEqual(self.wal.ask(COPY_APPEND, {1: bytes(16), 2: position, 3: data})[1][1], BAD_REQUEST)
        self.assertEqual(self.append(position, data[:-1])[1][1], BAD_REQUEST)
        self.assertEqual(self.append(position, b"x" * 100)[1][1], BAD_REQUEST)
        self.assertEqual(self.append(position + 5, data)[1][1], BAD_REQUEST)
        later = self.segments[1]
        position, data = next(later.pieces(1 << 14))
        kind, body = self.append(position, data)
        self.assertEqual((kind, body[1], body.get(4, 0)), (ERROR, CONFLICT, 0))
        self.assertFalse(os.path.exists(self.directory))
        kind, body = self.append(position, data, anew=True)
        self.assertEqual((kind, body[2]), (COPY_APPEND_REPLY, position + len(data)))
        self.assertEqual(self.places()[self.uuid][3], later.base)


class Faults(CopyTest):
    """walsvc ends at a step of a copy's write, roll or mark; what it had answered is there, and the copy goes on."""

    # The own log's first segment and mark are the first arrivals of theirs.
    POINTS = ("copy_sync=fail@1", "copy_sync=fail@9", "roll_written=kill@2", "roll_synced=kill@3", "roll_named=kill@3",
              "roll_dir_synced=kill@2", "roll_dir_synced=fail@3", "mark_written=kill@4", "mark_synced=kill@5",
              "seal_truncated=kill@1", "seal_synced=kill@2")

    def setUp(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")

    def fill_until_the_end(self):
        """Returns the place that was answered last."""
        end = 0
        try:
            for segment in self.segments:
                for position, data in segment.pieces(1 << 18):
                    kind, body = self.append(position, data)
                    self.assertEqual(kind, COPY_APPEND_REPLY)
                    end = body[2]
        except OSError:
            pass
        return end

    def go_on(self):
        end = self.places().get(self.uuid, (0,))[0]
        for segment in self.segments:
            for position, data in segment.pieces(1 << 18):
                if position >= end:
                    self.assertEqual(self.append(position, data)[0], COPY_APPEND_REPLY)
        return end

    def test_what_was_answered_survives_a_fault_at_each_step(self):
        for point in self.POINTS:
            with self.subTest(point=point), FirstLife(SETTINGS, ["env", f"SHANGHAI_FAILPOINT={point}"]) as node:
                self.assertFalse(node.start_through_fault())
                self.use(node)
                answered = self.fill_until_the_end()
                wait_restarted(node)
                self.wal = self.caller()
                self.assertGreaterEqual(self.go_on(), answered)
                self.check_files(self.segments)
        print(f"\ncount: kills at a step {len(self.POINTS)}", flush=True)


if __name__ == "__main__":
    unittest.main()
