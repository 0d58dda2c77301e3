"""Copies of other nodes' logs as querysvc serves them: a real querysvc on real files, and who stands in for walsvc, which
says how far each log is durable."""
import os
import shutil
import subprocess
import time
import unittest
import uuid
from types import SimpleNamespace

from caller import Caller
from shanghai import BIN, Node, wait_for

ERROR, READ, READ_REPLY, LOG_INFO, LOG_INFO_REPLY = 3, 34, 35, 38, 39
NOT_FOUND, UNAVAILABLE = 8, 12
SETTINGS = "wal: {segment_size: 4MiB}\nquery: {view: false}"  # a view waits at all copies, all the time
LINES = 30000
LONG_MS = 60000
NO_LOG = uuid.UUID(int=7)


def read(log, lsn, wait_ms=0, since=0):
    return {1: log.bytes, 2: lsn, 3: 1 << 20, 4: 1 << 40, 5: wait_ms, 6: since}


def caller_of(test, node):
    return Caller(test, f"{node.run}/query.in", f"{node.run}/query.out")


class CopyReads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """A log of several segments on the node that it is of, and how far it was durable after each of three appends."""
        cls.origin, cls.ends = Node(SETTINGS), []
        cls.addClassCleanup(cls.origin.close)
        cls.origin.start()
        for count in (LINES, 5, 1):
            cls.origin.ctl("append", "--batch", "100", "-", input=b"%0300d\n" % count * count)
            status = cls.origin.json("status")
            cls.ends.append((status["durable_end"], status["durable_lsn"]))
        cls.log = uuid.UUID(status["log"])
        asker = caller_of(SimpleNamespace(addCleanup=cls.addClassCleanup), cls.origin)
        cls.answers = {lsn: asker.ask(READ, read(cls.log, lsn)) for lsn in (1, LINES // 2, LINES + 1)}
        cls.info = asker.ask(LOG_INFO, {})
        assert len(cls.info[1][5]) >= 3
        event, = cls.origin.ctl("--format", "json", "read", "--from", str(LINES + 1), "--count", "1").stdout.splitlines()
        cls.hlc = int(event.split(b'"hlc":')[1].split(b",")[0])
        assert cls.origin.stop() == 0

    def setUp(self):
        self.node = Node(SETTINGS)
        self.addCleanup(self.node.close)
        self.node.start()
        self.node.ctl("append", "own")
        status = self.node.json("status")
        self.own, self.own_end = uuid.UUID(status["log"]), (status["durable_end"], status["durable_lsn"])
        self.assertEqual(self.node.stop(), 0)
        shutil.copytree(self.origin.log_dir(), os.path.join(self.node.data, "log", str(self.log)))
        self.start_wal()
        self.query = None
        self.start_query()
        wait_for(lambda: self.mine.ask(READ, read(NO_LOG, 1))[1][1] == NOT_FOUND, "querysvc to hear from walsvc")

    def start_query(self):
        """Another one, when there is one."""
        if self.query is not None:
            self.query.terminate()
            self.assertEqual(self.query.wait(), 0)
        self.query = self.run_beside("querysvc", "--config", self.node.config, "--node", "n1")
        wait_for(lambda: self.node.ctl("--timeout", "1s", "status", check=False).returncode == 0, "querysvc")
        self.mine = caller_of(self, self.node)

    def run_beside(self, program, *args, **options):
        process = subprocess.Popen([os.path.join(BIN, program), *args], stderr=subprocess.DEVNULL, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_wal(self, *words):
        self.wal = self.run_beside("stand_in_wal", f"ipc://{self.node.run}/wal", str(self.own), *words,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.wal.stdout.close)
        self.addCleanup(self.wal.stdin.close)
        self.assertEqual(self.wal.stdout.readline(), b"ready\n")
        self.tell(f"end {self.own} {self.own_end[0]} {self.own_end[1]}")

    def kill_wal(self):
        self.wal.kill()
        self.wal.wait()

    def tell(self, line):
        self.wal.stdin.write(line.encode() + b"\n")
        self.wal.stdin.flush()
        told = self.wal.stdout.readline().decode().strip()
        self.assertNotEqual(told, "what?")
        return told

    def hold(self, which):
        """The copy is durable so far as the origin was after that append."""
        self.tell(f"end {self.log} {self.ends[which][0]} {self.ends[which][1]}")

    def wait_read(self, lsn, following):
        """Of the copy, up to there: who asks does not wait for ever for what walsvc says."""
        def is_read():
            kind, reply = self.mine.ask(READ, read(self.log, lsn))
            return kind == READ_REPLY and reply[3] == following
        wait_for(is_read, f"LSN {lsn} to be read")

    def refused(self, code, expected, answer):
        kind, error = answer
        self.assertEqual((kind, error[1], error.get(3, 0)), (ERROR, code, expected), error)
        return error[2]

    def end_of(self, answer):
        """That it holds nothing, and the durable LSN that it tells."""
        kind, reply = answer
        self.assertEqual((kind, reply[5]), (READ_REPLY, b""))
        return reply[4]

    def test_a_copy_is_read_as_the_origin_is(self):
        self.hold(2)
        self.wait_read(LINES + 6, LINES + 7)
        for lsn, answer in self.answers.items():
            self.assertEqual(self.mine.ask(READ, read(self.log, lsn)), answer)
        self.assertEqual(self.mine.ask(READ, read(self.log, 1, since=self.hlc)), self.answers[LINES + 1])
        kind, info = self.mine.ask(LOG_INFO, {1: self.log.bytes})
        self.assertEqual((kind, info), self.info)
        kind, reply = self.mine.ask(READ, read(self.own, 1))
        self.assertEqual((kind, reply[1]), (READ_REPLY, self.own.bytes))

    def test_nothing_is_read_beyond_what_is_durable_here(self):
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        self.assertEqual(self.end_of(self.mine.ask(READ, read(self.log, LINES + 1))), LINES)
        self.refused(NOT_FOUND, LINES + 1, self.mine.ask(READ, read(self.log, LINES + 2)))
        self.assertEqual(self.end_of(self.mine.ask(READ, read(self.log, 1, since=self.hlc))), LINES)
        self.hold(1)
        self.wait_read(LINES + 1, LINES + 6)

    def test_who_waits_is_answered_when_the_copy_grows(self):
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        number = self.mine.send(READ, read(self.log, LINES + 1, LONG_MS))
        since = self.mine.send(READ, read(self.log, 1, LONG_MS, self.hlc))
        self.tell(f"end {self.own} {self.own_end[0]} {self.own_end[1]}")
        self.hold(1)
        answered = {}
        for _ in range(2):
            n, kind, reply = self.mine.take()
            self.assertEqual((kind, reply[3]), (READ_REPLY, LINES + 6))
            answered[n] = reply[5]
        self.assertEqual(set(answered), {number, since})
        self.assertEqual(self.end_of(self.mine.ask(READ, read(self.log, LINES + 6, 200))), LINES + 5)

    def test_who_waits_hears_of_a_walsvc_that_came_again(self):
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        number = self.mine.send(READ, read(self.log, LINES + 1, LONG_MS))
        self.kill_wal()
        self.start_wal()
        self.hold(2)
        n, kind, reply = self.mine.take()
        self.assertEqual((n, kind, reply[3]), (number, READ_REPLY, LINES + 7))

    def test_a_log_that_is_not_held_is_not_found_at_once(self):
        for wait_ms in (0, LONG_MS):
            text = self.refused(NOT_FOUND, 0, self.mine.ask(READ, read(NO_LOG, 1, wait_ms)))
            self.assertEqual(text, "this node does not hold that log")
            self.refused(NOT_FOUND, 0, self.mine.ask(READ, read(self.log, 1, wait_ms)))
        self.refused(NOT_FOUND, 0, self.mine.ask(LOG_INFO, {1: NO_LOG.bytes}))
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        number = self.mine.send(READ, read(self.log, LINES + 1, LONG_MS))
        self.tell(f"drop {self.log}")
        n, *answer = self.mine.take()
        self.assertEqual(n, number)
        self.refused(NOT_FOUND, 0, answer)

    def test_while_walsvc_is_away_copies_are_read_as_far_as_was_told(self):
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        self.kill_wal()
        self.assertEqual(self.mine.ask(READ, read(self.log, 1)), (READ_REPLY, {**self.answers[1][1], 4: LINES}))
        self.assertEqual(self.end_of(self.mine.ask(READ, read(self.log, LINES + 1))), LINES)
        self.refused(NOT_FOUND, 0, self.mine.ask(READ, read(NO_LOG, 1)))

    def test_a_walsvc_that_does_not_say_leaves_copies_unavailable(self):
        self.kill_wal()
        self.start_query()
        self.refused(UNAVAILABLE, 0, self.mine.ask(READ, read(self.log, 1, LONG_MS)))
        self.start_wal("deaf")

        def asked():
            self.refused(UNAVAILABLE, 0, self.mine.ask(LOG_INFO, {1: self.log.bytes}))
            return int(self.tell("asked")) > 0
        wait_for(asked, "querysvc to ask it")
        wait_for(lambda: self.mine.ask(READ, read(self.own, 1))[0] == READ_REPLY, "the own log")
        self.refused(UNAVAILABLE, 0, self.mine.ask(READ, read(self.log, 1, LONG_MS)))

    def test_nothing_is_asked_for_while_nobody_waits_at_a_copy(self):
        self.hold(0)
        self.wait_read(LINES, LINES + 1)
        before = self.tell("asked")
        for i in range(20):
            self.hold(i % 2)
            self.assertEqual(self.mine.ask(READ, read(self.own, 1))[0], READ_REPLY)
            self.assertEqual(self.mine.ask(READ, read(self.log, 1))[0], READ_REPLY)
        self.assertEqual(self.tell("asked"), before)

    def test_who_waits_at_a_copy_does_not_have_each_commit_told(self):
        self.hold(2)
        self.wait_read(LINES, LINES + 7)
        self.mine.send(READ, read(self.log, LINES + 7, LONG_MS))
        start, before = time.monotonic(), int(self.tell("asked"))
        told = 0
        while told < 3000 or (int(self.tell("asked")) == before and time.monotonic() < start + 60):
            self.tell(f"end {self.own} {self.own_end[0]} {self.own_end[1]}")
            told += 1
        asked = int(self.tell("asked")) - before
        self.assertLess(asked, 2 + (time.monotonic() - start) * 1000 / 5)
        self.assertGreater(asked, 0)

    def no_such_log(self, *args):
        done = self.node.ctl(*args, "--log", str(NO_LOG), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn("not_found: this node does not hold that log", done.stderr.decode())

    def test_shanghaictl_reads_copies(self):
        self.hold(1)
        self.wait_read(LINES + 1, LINES + 6)
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
        self.wait_read(LINES, LINES + 1)
        info = self.node.json("log", "info", "--log", str(self.log))
        self.assertEqual((info["log"], info["first_lsn"], info["durable_lsn"], info["durable_end"], info["walsvc"]),
                         (str(self.log), 1, LINES, self.ends[0][0], False))
        self.assertEqual([segment["base_lsn"] for segment in info["segments"]], [row[0] for row in self.info[1][5]])
        self.assertNotIn("walsvc", self.node.ctl("log", "info", "--log", str(self.log)).stdout.decode())
        for command in (("read",), ("tail",), ("tail", "-f"), ("tail", "-f", "--since", "1h"), ("log", "info")):
            self.no_such_log(*command)


if __name__ == "__main__":
    unittest.main()
