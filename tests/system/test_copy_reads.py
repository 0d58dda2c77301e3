"""walsvc keeps the copy of another node's log: bytes as they are in that node's files go in by messages, and come out the
same, through kills, restarts and trims."""
import hashlib
import json
import os
import signal
import unittest
import uuid

from caller import Caller
from shanghai import Node, wait_for

ERROR, HOLD, HOLD_REPLY, LOG_TRIM, LOG_TRIM_REPLY, WAL_INFO, WAL_INFO_REPLY = 3, 22, 23, 20, 21, 28, 29
REPAIR, REPAIR_REPLY, ACCEPT_LOSS, LOGS, LOGS_REPLY, COPY_APPEND, COPY_APPEND_REPLY = 24, 25, 26, 48, 49, 50, 51
BAD_REQUEST, CONFLICT, NOT_FOUND = 1, 6, 8
SEGMENT_HEADER, FRAME_HEADER = 64, 88
SETTINGS = "wal:\n  segment_size: 4MiB"
LINES = 120000


def integer(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


class Segment:
    """Of a node that has stopped: its bytes up to the last frame, and where frames begin."""

    def __init__(self, path):
        self.name = os.path.basename(path)
        with open(path, "rb") as file:
            data = file.read()
        self.base, self.position = integer(data, 32, 8), integer(data, 40, 8)
        self.starts, at = [], SEGMENT_HEADER
        while data[at:at + 4] == b"SHFR":
            self.starts.append(at)
            at += FRAME_HEADER + integer(data, at + 8, 4)
        self.data = data[:at]

    def pieces(self, most):
        """(position, bytes) of whole frames, the header before the first one."""
        begin = 0
        for start in self.starts[1:] + [len(self.data)]:
            if start - begin >= most or start == len(self.data):
                yield self.position + begin, self.data[begin:start]
                begin = start


class CopyReads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Node(settings=SETTINGS) as origin:
            origin.start()
            origin.ctl("append", "--batch", "100", "-", input=b"".join(b"%0100d\n" % i for i in range(LINES)))
            directory = origin.log_dir()
            origin.stop()
            cls.uuid = os.path.basename(directory)
            names = sorted(name for name in os.listdir(directory) if name.endswith(".seg"))
            cls.segments = [Segment(os.path.join(directory, name)) for name in names]
        assert len(cls.segments) >= 4
        cls.log = uuid.UUID(cls.uuid).bytes
        cls.end = cls.segments[-1].position + len(cls.segments[-1].data)

    def setUp(self):
        self.node = Node(settings=SETTINGS).start()
        self.addCleanup(self.node.close)
        self.directory = os.path.join(self.node.data, "log", self.uuid)
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
        return {str(uuid.UUID(bytes=log[0])): tuple(log[1:]) for log in body[3]}

    def check_files(self, segments):
        for segment in segments:
            with open(os.path.join(self.directory, segment.name), "rb") as file:
                data = file.read()
            self.assertEqual(hashlib.sha256(data[:len(segment.data)]).digest(), hashlib.sha256(segment.data).digest())
            self.assertEqual(data[len(segment.data):].strip(b"\0"), b"")
        for segment in segments[:-1]:
            path = os.path.join(self.directory, segment.name)
            wait_for(lambda p=path, s=segment: os.path.getsize(p) == len(s.data), "a sealed segment to be cut")

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

    def test_other_nodes_hear_of_copies(self):
        reply = self.fill(self.segments[:1])

        def told():
            marks = [mark for node in self.node.json("nodes")["nodes"] for mark in node["watermarks"]]
            return any(mark["log"] == self.uuid and mark["lsn"] == reply[3] for mark in marks)
        wait_for(told, "the copy's watermark in the list of nodes")

    def test_holds_trims_questions_and_repairs_name_the_copy(self):
        self.fill(self.segments)
        third = self.segments[2]
        kind, body = self.wal.ask(HOLD, {1: self.log, 2: "n9", 3: 1, 4: third.base, 5: 0})
        self.assertEqual((kind, body[1]), (HOLD_REPLY, self.log), body)
        kind, body = self.wal.ask(LOG_TRIM, {1: self.log, 2: self.segments[3].base})
        self.assertEqual((kind, body[1], body[2]), (LOG_TRIM_REPLY, self.log, third.base), body)
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

    def no_such_log(self, *args):
        done = self.node.ctl(*args, "--log", str(NO_LOG), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn("not_found: this node does not hold that log", done.stderr.decode())

    def test_shanghaictl_reads_copies(self):
        self.hold(1)
        of_copy = ("--format", "raw", "--log", str(self.log))
        line = b"%0300d\n" % 5
        self.assertEqual(self.node.ctl("read", *of_copy, "--from", str(LINES + 1)).stdout, line * 5)
        self.assertEqual(self.node.ctl("tail", *of_copy, "--lines", "2").stdout, line * 2)
        self.assertEqual(self.node.ctl("read", *of_copy, "--from", str(LINES + 6)).stdout, b"")
        done = self.node.ctl("read", *of_copy, "--from", str(LINES + 7), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"the log ends at LSN {LINES + 5}", done.stderr.decode())
        follower = subprocess.Popen(self.node.ctl_command("tail", "-f", *of_copy, "--lines", "1"), stdout=subprocess.PIPE)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        self.assertEqual(follower.stdout.readline(), line)
        self.hold(2)
        self.assertEqual(follower.stdout.readline(), b"%0300d\n" % 1)

    def test_shanghaictl_tells_of_copies(self):
        self.hold(0)
        info = self.node.json("log", "info", "--log", str(self.log))
        self.assertEqual((info["log"], info["first_lsn"], info["durable_lsn"], info["durable_end"], info["walsvc"]),
                         (str(self.log), 1, LINES, self.ends[0][0], False))
        self.assertEqual([segment["base_lsn"] for segment in info["segments"]], [row[0] for row in self.info[1][5]])
        self.assertNotIn("walsvc", self.node.ctl("log", "info", "--log", str(self.log)).stdout.decode())
        for command in (("read",), ("tail",), ("tail", "-f"), ("tail", "-f", "--since", "1h"), ("log", "info")):
            self.no_such_log(*command)


if __name__ == "__main__":
    unittest.main()
