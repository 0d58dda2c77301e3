"""A node whose own log is behind its copies, or on another chain: it is fetched back by messages, as replsvc sends them,
what was cut off comes back at the end, and nobody writes meanwhile."""
import json
import os
import shutil
import subprocess
import unittest
import uuid

from caller import Caller
from first_life import MANY_RESTARTS, FirstLife
from segments import read_segments
from shanghai import BIN, Node, wait_for

ERROR, APPEND, APPEND_REPLY, LOG_TRIM, HOLD, HOLD_REPLY, ACCEPT_LOSS, WAL_INFO, WAL_INFO_REPLY = 3, 16, 17, 20, 22, 23, 26, 28, 29
WRITE_PERMIT, WRITE_PERMIT_REPLY, LOGS, LOGS_REPLY, COPY_APPEND, COPY_APPEND_REPLY = 30, 31, 48, 49, 50, 51
REPLICATED, OWN_LOG, OWN_LOG_REPLY = 52, 54, 55
BAD_REQUEST, READ_ONLY, UNAVAILABLE = 1, 5, 12
SETTINGS = "wal:\n  segment_size: 4MiB"
PRODUCER = bytes(range(16))
GOES_ON, BEHIND, FORKED = 0, 1, 2
# These tests say what it would say.
NO_REPLSVC = "children: [{service: walsvc}, {service: membersvc}, {service: querysvc}]"


def has_failpoints():
    out = subprocess.run([os.path.join(BIN, "shanghaictl"), "--format", "json", "version"], capture_output=True, check=True)
    return json.loads(out.stdout).get("failpoints", False)


class OwnCopy(unittest.TestCase):
    def begin(self, node=None):
        self.node = node or Node(settings=SETTINGS, supervisor=f"supervisor: {{{MANY_RESTARTS}, {NO_REPLSVC}}}")
        self.addCleanup(self.node.close)
        self.node.start()
        self.saved = os.path.join(self.node.dir, "saved")

    def caller(self):
        return Caller(self, f"{self.node.run}/wal.in", f"{self.node.run}/wal.out")

    def append(self, begin, end):
        """Lines of these numbers, 1 KB each."""
        self.node.ctl("append", "--batch", "10", "-", input=b"".join(b"%01000d\n" % i for i in range(begin, end)))

    def append_as(self, sequence, wal=None):
        """As a producer whose sequence is remembered."""
        entry = [0, "", b"of a producer %d" % sequence]
        return (wal or self.caller()).ask(APPEND, {1: PRODUCER, 2: 1, 3: sequence, 4: 0, 5: 0, 6: [entry]})

    def lines(self):
        out = self.node.ctl("--format", "raw", "read", "--count", "1000000")
        return [line for line in out.stdout.decode().split("\n") if line]

    def stop(self):
        self.assertEqual(self.node.stop(), 0)

    def save(self):
        self.stop()
        shutil.copytree(self.node.data, self.saved)
        self.node.start()

    def roll_back(self):
        """The disk is as it was when it was saved; returns what the log's folder held until now."""
        self.stop()
        segments = read_segments(self.node.log_dir())
        shutil.rmtree(self.node.data)
        shutil.copytree(self.saved, self.node.data)
        self.node.start()
        return segments

    def logs(self):
        kind, body = self.caller().ask(LOGS, {2: 0, 3: 0})
        self.assertEqual(kind, LOGS_REPLY)
        return body

    def tell(self, verdict):
        """As replsvc does; walsvc ends, and comes back."""
        pid = self.node.pid("walsvc")
        self.caller().send(OWN_LOG, {1: verdict, 2: "n2 has more"})
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")

    def bring(self, segments, over=False, most=1 << 18):
        wal = self.caller()
        for segment in segments:
            for position, data in segment.pieces(most):
                body = {1: uuid.UUID(os.path.basename(self.node.log_dir())).bytes, 2: position, 3: data}
                if over:
                    body[5] = True
                kind, body = wal.ask(COPY_APPEND, body)
                self.assertEqual(kind, COPY_APPEND_REPLY, body)
        return body

    def take_appends(self):
        """Waits until it does."""
        wait_for(lambda: self.node.ctl("append", "again", check=False).returncode == 0, "appends to be taken")

    def check_refused(self):
        """What changes the log is, by name; what doesn't goes on."""
        log = uuid.UUID(os.path.basename(self.node.log_dir())).bytes
        done = self.node.ctl("append", "x", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"fetched back", done.stderr)
        wal = self.caller()
        for kind, body in ((APPEND, {1: PRODUCER, 2: 1, 3: 7, 4: 0, 5: 0, 6: [[0, "", b"x"]]}),
                           (LOG_TRIM, {2: 1}), (LOG_TRIM, {1: log, 2: 1}), (ACCEPT_LOSS, {2: 1, 3: 1}),
                           (REPLICATED, {1: 1, 2: 1, 3: 1})):
            answer, refusal = wal.ask(kind, body)
            self.assertEqual((kind, answer, refusal[1]), (kind, ERROR, READ_ONLY))
            self.assertIn("fetched back", refusal[2])
        answer, refusal = wal.ask(WRITE_PERMIT, {2: "has left"})
        self.assertEqual((answer, refusal[1]), (ERROR, UNAVAILABLE))
        self.assertEqual(wal.ask(WRITE_PERMIT, {1: True})[0], WRITE_PERMIT_REPLY)
        self.assertEqual(wal.ask(HOLD, {2: "x", 3: 3, 4: 1, 5: 1000})[0], HOLD_REPLY)
        self.assertEqual(wal.ask(WAL_INFO, {})[0], WAL_INFO_REPLY)
        self.assertTrue(self.lines())
        answer, refusal = wal.ask(COPY_APPEND, {1: log, 2: 1 << 40, 3: b"x", 4: True})
        self.assertEqual((answer, refusal[1]), (ERROR, BAD_REQUEST))

    # ---- tests ----

    def test_a_log_that_is_behind_is_fetched_back(self):
        self.begin()
        self.append(1, 2000)
        self.save()
        self.append(2000, 9000)
        kind, first = self.append_as(1)
        self.assertEqual(kind, APPEND_REPLY)
        whole = self.lines()
        segments = self.roll_back()
        self.assertGreater(len(segments), 2)
        self.assertNotIn(5, self.logs())
        self.tell(BEHIND)
        body = self.logs()
        self.assertTrue(body[5])
        self.assertFalse(body.get(4, False))
        self.check_refused()
        pid = self.node.kill("walsvc")  # the mode outlives that
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")
        self.assertTrue(self.logs()[5])
        reply = self.bring(segments)
        self.assertEqual(reply[2], segments[-1].end)
        self.assertEqual(self.lines(), whole)
        self.tell(GOES_ON)
        body = self.logs()
        self.assertFalse(body.get(5, False))
        self.assertEqual(body[3][0][1], segments[-1].end)
        self.take_appends()
        kind, again = self.append_as(1)
        self.assertEqual((kind, again[2]), (APPEND_REPLY, first[2]))  # producers come out of the frames
        self.assertEqual(self.lines()[:len(whole)], whole)

    def test_a_log_that_was_cut_is_not_read_as_damaged(self):
        self.begin()
        self.fork()
        self.tell(FORKED)
        self.assertGreater(len(self.lines()), 7000)  # querysvc knows that end
        self.bring(self.others[:1], over=True)
        lines = self.lines()
        self.assertLess(len(lines), 7000)
        self.assertEqual(lines, self.theirs[:len(lines)])

    def test_what_others_have_stays_and_the_own_tail_comes_again(self):
        self.begin()
        self.fork()
        self.tell(FORKED)
        self.check_refused()
        reply = self.bring(self.others, over=True)
        self.assertEqual(reply[2], self.others[-1].end)
        self.assertEqual(self.lines(), self.theirs)
        given_up = self.logs()[6]
        self.assertEqual(len(given_up), 1)
        self.assertLess(given_up[0][0], self.others[-1].end)
        self.tell(GOES_ON)
        self.take_appends()
        self.check_both()
        self.assertEqual(self.logs()[6], given_up)
        again = self.append_as(2)  # the same producer's
        self.assertEqual(again[0], APPEND_REPLY)
        self.assertEqual(len([line for line in self.lines() if line == "of a producer 2"]), 1)
        self.stop()
        self.node.start()
        self.check_both()

    def fork(self):
        """Two lives behind the same begin: `others` is what members hold of one, the node has the other."""
        self.append(1, 2000)
        self.append_as(1)
        self.save()
        self.append(2000, 9000)
        self.append_as(2)
        self.theirs = self.lines()
        self.others = self.roll_back()
        self.append(20000, 26000)
        self.append_as(2)  # the same bytes as in the other life
        self.append_as(3)
        self.mine = self.lines()[2000:]

    def check_both(self):
        """What others had, then what only this node had, each once."""
        mine = [line for line in self.mine if line != "of a producer 2"]
        lines = self.lines()
        self.assertEqual(lines[:len(self.theirs)], self.theirs)
        self.assertEqual(lines[len(self.theirs):len(self.theirs) + len(mine)], mine)
        names = os.listdir(os.path.join(self.node.data, "forked"))
        self.assertTrue(names and all(name.endswith(".done") for name in names), names)

    def test_the_own_log_takes_no_frames_while_it_is_none(self):
        self.begin()
        log = uuid.UUID(os.path.basename(self.node.log_dir())).bytes
        answer, refusal = self.caller().ask(COPY_APPEND, {1: log, 2: 0, 3: b"x", 5: True})
        self.assertEqual((answer, refusal[1]), (ERROR, BAD_REQUEST))
        pid = self.node.pid("walsvc")
        self.assertEqual(self.caller().ask(OWN_LOG, {1: GOES_ON})[0], OWN_LOG_REPLY)
        self.assertEqual(self.node.pid("walsvc"), pid)

    # Where walsvc is killed, and in which life: while it ends for the other mode, as a copy, or as the own log again.
    POINTS = {"own_copy_begun": "ends", "cut_kept": "copy", "cut_named": "copy", "cut_marked": "copy", "cut_removed": "copy",
              "cut_zeroed": "copy", "own_copy_ended": "comes back", "regain_progress": "own", "regain_done": "own"}

    def test_a_kill_at_each_step_loses_and_doubles_nothing(self):
        if not has_failpoints():
            self.skipTest("a build without failpoints")
        for point, life in self.POINTS.items():
            with self.subTest(point=point), FirstLife(SETTINGS) as node:
                self.go_through(node, point, life)
        print(f"\ncount: kills at a step {len(self.POINTS)}", flush=True)

    def go_through(self, node, point, life):
        self.begin(node)
        self.fork()
        prefix = ["env", f"SHANGHAI_FAILPOINT={point}=kill@1"]
        if life == "ends":
            self.restart_with(prefix)
        elif life == "copy":
            node.arm(prefix)
        self.tell(FORKED)
        if life == "ends":  # nothing was written down, or all of it was
            if 5 not in self.logs():
                self.tell(FORKED)
        self.bring_through(self.others)
        if life == "comes back":
            self.restart_with(prefix)
        elif life == "own":
            node.arm(prefix)
        self.tell(GOES_ON)
        if life == "comes back" and 5 in self.logs():
            self.tell(GOES_ON)
        self.take_appends()
        self.check_both()
        self.assertFalse(os.path.isdir(node.marker), "the fault was met")
        shutil.rmtree(self.saved)

    def is_copy(self):
        try:
            return self.logs().get(5)
        except OSError:
            return False  # it isn't there yet

    def restart_with(self, prefix):
        """This life of walsvc has the fault."""
        self.node.arm(prefix)
        pid = self.node.kill("walsvc")
        wait_for(lambda: self.node.pid("walsvc") != pid, "walsvc to come back")

    def bring_through(self, segments):
        """Again when walsvc ends on the way: the same messages do the rest."""
        for _ in range(3):
            try:
                return self.bring(segments, over=True)
            except OSError:
                wait_for(self.is_copy, "walsvc to come back as a copy")
        raise AssertionError("walsvc ends again and again")


if __name__ == "__main__":
    unittest.main()
