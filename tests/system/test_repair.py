"""Damage and what is done about it, with real processes: frames that somebody still has are put back by messages, and
what nobody has is given up by `shanghaictl log accept-loss`."""
import json
import os
import pty
import re
import signal
import subprocess
import unittest

from caller import Caller
from shanghai import Node, wait_for

ERROR, APPEND, APPEND_REPLY = 3, 16, 17
REPAIR, REPAIR_REPLY, ACCEPT_LOSS, ACCEPT_LOSS_REPLY = 24, 25, 26, 27
BAD_REQUEST, OVERLOADED, CONFLICT, NOT_FOUND = 1, 3, 6, 8
SEGMENT_HEADER, FRAME_HEADER = 64, 88
LINES, FRAME_LINES, WIDTH = 100000, 1000, 101
SETTINGS = "wal:\n  segment_size: 4MiB"


def line(number):
    return b"%0100d\n" % number


def frames_of(data):
    """(offset, base LSN, entries) of each frame of a segment's bytes, and where they end."""
    at, found = SEGMENT_HEADER, []
    while data[at:at + 4] == b"SHFR":
        found.append((at, int.from_bytes(data[at + 16:at + 24], "little"), int.from_bytes(data[at + 24:at + 28], "little")))
        at += FRAME_HEADER + int.from_bytes(data[at + 8:at + 12], "little")
    return found, at


class Mending(unittest.TestCase):
    def setUp(self):
        self.node = Node(settings=SETTINGS).start()
        self.addCleanup(self.node.close)
        self.data = b"".join(line(i) for i in range(1, LINES + 1))
        wal = self.wal()  # by hand: frames of a known size, some 30 in a segment
        for first in range(1, LINES + 1, FRAME_LINES):
            entries = [[0, "", line(i)[:-1]] for i in range(first, first + FRAME_LINES)]
            kind, body = wal.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries})
            self.assertEqual((kind, body[2]), (APPEND_REPLY, first))
        self.segments = sorted(name for name in os.listdir(self.node.log_dir()) if name.endswith(".seg"))
        self.assertGreaterEqual(len(self.segments), 3)

    def path(self, segment):
        return os.path.join(self.node.log_dir(), self.segments[segment])

    def base(self, segment):
        return int(self.segments[segment][:20])

    def content(self, segment):
        with open(self.path(segment), "rb") as file:
            return file.read()

    def overwrite(self, segment, offset, data):
        with open(self.path(segment), "r+b") as file:
            file.seek(offset)
            file.write(data)

    def wal(self):
        return Caller(self, f"{self.node.run}/wal.in", f"{self.node.run}/wal.out")

    def repair(self, caller, segment, offset, data):
        return caller.ask(REPAIR, {2: self.base(segment), 3: offset, 4: data})

    def verify(self):
        out = self.node.ctl("--format", "json", "log", "verify", "--data", self.node.data, check=False)
        return out.returncode, json.loads(out.stdout)

    def assert_all_reads_back(self):
        self.assertEqual(self.node.ctl("--format", "raw", "read", "--count", str(LINES)).stdout, self.data)
        self.assertEqual(self.verify()[0], 0)

    # ---------------------------------------------------------------- repair

    def test_frames_that_were_saved_aside_are_put_back(self):
        index = self.path(1).replace(".seg", ".idx")
        self.node.restart_with_indexes()
        self.assertTrue(os.path.exists(index))
        good = self.content(1)
        frames, end = frames_of(good)
        self.assertEqual(end, len(good))
        first, last = 10, 20
        self.overwrite(1, frames[first][0] + 10, bytes(frames[last][0] - frames[first][0]))
        out = self.node.ctl("read", "--from", str(frames[first][1]), check=False)
        self.assertEqual(out.returncode, 1)
        self.assertIn(b"corrupt", out.stderr)
        code, report = self.verify()
        self.assertEqual((code, len(report["damages"])), (1, 1))
        begin, behind = report["damages"][0]["offset"], report["damages"][0]["offset"] + report["damages"][0]["bytes"]
        self.assertEqual(begin, frames[first][0])
        self.assertIn(behind, [at for at, _, _ in frames])

        wal, middle = self.wal(), frames[(first + last) // 2]
        kind, body = self.repair(wal, 1, begin, good[begin:middle[0]])
        self.assertFalse(os.path.exists(index))  # it goes before bytes change
        self.assertEqual((kind, body[3], body[4], body.get(5, False)), (REPAIR_REPLY, middle[0], middle[1], False))
        kind, body = self.repair(wal, 1, middle[0], good[middle[0]:behind])
        self.assertEqual((kind, body[3], body.get(5)), (REPAIR_REPLY, behind, True))
        self.assertEqual(self.content(1), good)
        wait_for(lambda: os.path.exists(index), "the index to be made again")
        self.assert_all_reads_back()
        self.node.wait_logged("damage repaired")
        kept = os.listdir(os.path.join(self.node.data, "quarantine"))
        self.assertEqual(len(kept), 2)  # the old bytes of both parts

    def test_headers_files_and_repairs_under_load(self):
        wal = self.wal()
        more = subprocess.Popen(self.node.ctl_command("append", "--batch", "100", "-"), stdin=subprocess.PIPE,
                                stdout=subprocess.DEVNULL, env=self.node.env)
        self.addCleanup(more.wait)
        self.addCleanup(more.stdin.close)
        for segment in (0, 1):
            good = self.content(segment)
            frames, _ = frames_of(good)
            for offset, size in ((0, SEGMENT_HEADER), (frames[0][0], frames[1][0] - frames[0][0]), (0, len(good))):
                self.overwrite(segment, offset, b"\x5a" * size)
                self.node.ctl("status")
                more.stdin.write(line(0) * 100)
                kind, body = self.repair(wal, segment, offset, good[offset:offset + size])
                self.assertEqual((kind, body.get(5)), (REPAIR_REPLY, True), body)
                self.assertEqual(self.content(segment), good)
        good = self.content(1)
        os.unlink(self.path(1))
        kind, body = self.repair(wal, 1, 0, good)
        self.assertEqual((kind, body.get(5)), (REPAIR_REPLY, True), body)
        self.assertEqual(self.content(1), good)
        more.stdin.close()
        self.assertEqual(more.wait(60), 0)
        self.assert_all_reads_back()
        self.node.wait_durable(LINES + 600)

    def test_what_is_refused(self):
        good = self.content(1)
        frames, _ = frames_of(good)
        at, end = frames[1][0], frames[2][0]
        wal = self.wal()

        def refused(code, message):
            kind, body = wal.ask(REPAIR, message)
            self.assertEqual((kind, body.get(1)), (ERROR, code), body)

        refused(CONFLICT, {2: self.base(1), 3: at, 4: good[frames[2][0]:frames[3][0]]})
        refused(BAD_REQUEST, {2: self.base(1), 3: at})
        refused(BAD_REQUEST, {2: self.base(1), 3: "at", 4: good[at:end]})
        self.overwrite(1, at + FRAME_HEADER, b"\x00\x01\x02")
        refused(BAD_REQUEST, {2: self.base(1), 3: at, 4: good[at:end - 1]})
        refused(BAD_REQUEST, {2: self.base(1), 3: at, 4: bytes(end - at)})
        refused(NOT_FOUND, {2: 10 * LINES, 3: 0, 4: good[:end]})
        refused(NOT_FOUND, {1: bytes(15) + b"\1", 2: self.base(1), 3: at, 4: good[at:end]})
        # querysvc doesn't pass such a message on: it is not for clients.
        query = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        kind, body = self.repair(query, 1, at, good[at:end])
        self.assertEqual((kind, body[1]), (ERROR, BAD_REQUEST))
        self.assertEqual(self.repair(wal, 1, at, good[at:end])[0], REPAIR_REPLY)
        self.assert_all_reads_back()

    def test_one_request_at_a_time(self):
        good, wal = self.content(1), self.wal()

        def is_refused():
            """A small one behind a large one: unless that was done already, it has to come again."""
            wal.send(REPAIR, {2: self.base(1), 3: 0, 4: good})
            second = wal.send(REPAIR, {2: self.base(1), 3: 0, 4: good[:SEGMENT_HEADER]})
            answers = {number: (kind, body) for number, kind, body in (wal.take(), wal.take())}
            self.assertEqual(answers[second - 1][0], REPAIR_REPLY)
            kind, body = answers[second]
            if kind == ERROR:
                self.assertEqual(body[1], OVERLOADED)
                self.assertGreater(body[4], 0)
            return kind == ERROR

        wait_for(is_refused, "a request that is refused while another is in work")
        self.assertEqual(self.repair(wal, 1, 0, good[:SEGMENT_HEADER])[0], REPAIR_REPLY)
        self.assertEqual(self.content(1), good)

    # ---------------------------------------------------------------- accept-loss

    def lose(self, segment, frame):
        """Harms one frame; its first and last LSN."""
        offset, lsn, count = frames_of(self.content(segment))[0][frame]
        self.overwrite(segment, offset + FRAME_HEADER, b"\xff\xff\xff")
        return lsn, lsn + count - 1

    def accept(self, *args, **options):
        return self.node.ctl("log", "accept-loss", *map(str, args), check=False, **options)

    def answer(self, text, *args):
        """The same on a terminal, where a person types something."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, text)
            command = self.node.ctl_command("log", "accept-loss", *map(str, args))
            return subprocess.run(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=self.node.env,
                                  check=False, timeout=60)
        finally:
            os.close(theirs)
            os.close(ours)

    def test_what_nobody_has_is_given_up(self):
        first, last = self.lose(1, 2)
        self.assertEqual(self.verify()[0], 1)
        out = self.accept("--yes", first, last)
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertIn(b"given up: LSN %d to %d" % (first, last), out.stdout)
        for _ in range(2):  # before and after a restart
            code, report = self.verify()
            self.assertEqual((code, report["accepted_losses"], len(report["damages"])), (0, 1, 1))
            self.assertGreater(report["damages"][0]["accepted_ms"], 0)
            out = self.node.ctl("log", "verify", "--data", self.node.data)
            self.assertRegex(out.stdout, rb"accepted loss.*LSN %d to %d: .*; accepted 20" % (first, last))
            shown = self.node.json("log", "info")["damages"]
            self.assertEqual([(row["file"], row["first_lsn"], row["next_lsn"], row["state"]) for row in shown],
                             [(self.segments[1], first, last + 1, "accepted")])
            self.assertGreater(shown[0]["accepted_ms"], 0)
            text = self.node.ctl("log", "info").stdout
            self.assertIn(b"none open; 1 accepted as lost", text)
            self.assertRegex(text, rb"(?m)^%s .* %d to %d +accepted 20" % (self.segments[1].encode(), first, last))
            self.assertIn(b"good", out.stdout)
            out = self.node.ctl("read", "--from", str(first), check=False)
            self.assertEqual(out.returncode, 1)
            self.assertRegex(out.stderr, rb"corrupt.*its loss was accepted on 20\d\d-\d\d-\d\d at \d\d:\d\d:\d\d UTC")
            behind = int(re.search(rb"--from (\d+)", out.stderr).group(1))
            self.assertEqual(behind, last + 1)
            rest = self.node.ctl("--format", "raw", "read", "--from", str(behind), "--count", str(LINES)).stdout
            self.assertEqual(rest, self.data[last * WIDTH:])
            self.assertEqual(self.node.stop(), 0)
            self.node.start()
        out = self.accept("--yes", first, last)  # twice is fine, and writes nothing
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertRegex(out.stdout, rb"given up already, on 20.*: LSN %d to %d" % (first, last))
        added = self.node.json("append", "one more")
        self.assertEqual(added["first"]["lsn"], LINES + 1)  # a loss frame takes no LSN
        kinds = [json.loads(row)["kind"] for row in self.node.ctl(
            "--format", "json", "log", "dump", "--data", self.node.data, "--from", str(LINES)).stdout.splitlines()]
        self.assertEqual(kinds.count("loss"), 1)

    def test_in_json_and_for_a_log_by_name(self):
        first, last = self.lose(0, 2)
        uuid = os.path.basename(self.node.log_dir())
        words = ("--format", "json", "log", "accept-loss", "--yes", "--log", uuid, str(first), str(last))
        out = self.node.ctl(*words, endpoint=self.node.tcp, check=False)
        self.assertEqual(out.returncode, 3)
        self.assertIn(b"forbidden", out.stderr)
        out = self.node.ctl(*words)
        loss = json.loads(out.stdout)
        self.assertEqual((loss["log"], loss["first_lsn"], loss["last_lsn"]), (uuid, first, last))
        self.assertGreater(loss["end"], loss["begin"])
        self.assertIsNone(loss["accepted_ms"])
        self.assertGreater(json.loads(self.node.ctl(*words).stdout)["accepted_ms"], 0)
        out = self.accept("--yes", "--log", "00000000-0000-4000-8000-000000000001", first, last)
        self.assertEqual(out.returncode, 1)
        self.assertIn(b"not_found", out.stderr)

    def test_nothing_that_can_be_read_is_given_up(self):
        first, last = self.lose(1, 2)
        for low, high, words in ((first - 1, last, "LSN %d can be read" % (first - 1)),
                                 (first, last + 1, "LSN %d can be read" % (last + 1)),
                                 (first + 1, last, "LSN %d is missing too" % first),
                                 (first, last - 1, "LSN %d is missing too" % last),
                                 (5, 6, "LSN 5 can be read")):
            out = self.accept("--yes", low, high)
            self.assertEqual(out.returncode, 1, out.stderr)
            self.assertIn(b"conflict", out.stderr)
            self.assertIn(words.encode(), out.stderr)
        out = self.accept("--yes", LINES, LINES + 1)
        self.assertEqual(out.returncode, 1)
        self.assertIn(b"not_found", out.stderr)
        for args in ((0, 5), (6, 5), ("x", 5), (5,), (1, 2, 3), ("--log", "x", 1, 2)):
            out = self.accept("--yes", *args)
            self.assertEqual(out.returncode, 2, (args, out.stderr))
        self.assertEqual(self.verify()[0], 1)
        wal = self.wal()
        for body in ({2: 1}, {2: 1, 3: "x"}):
            self.assertEqual(wal.ask(ACCEPT_LOSS, body)[1][1], BAD_REQUEST)
        self.assertEqual(wal.ask(ACCEPT_LOSS, {2: 5, 3: 4})[1][1], BAD_REQUEST)
        self.assertEqual(wal.ask(ACCEPT_LOSS, {2: first, 3: last})[0], ACCEPT_LOSS_REPLY)

    def test_a_person_is_asked(self):
        first, last = self.lose(1, 2)
        out = self.accept(first, last)
        self.assertEqual(out.returncode, 2)
        self.assertIn(b"--yes", out.stderr)
        for text in (b"\n", b"n\n", b"no\n", b"\x04"):
            self.assertEqual(self.answer(text, first, last).returncode, 2, text)
        self.assertEqual(self.verify()[0], 1)
        self.assertEqual(self.answer(b"y\n", first, last).returncode, 0)
        self.assertEqual(self.verify()[0], 0)

    def test_a_loss_survives_the_end_of_walsvc(self):
        first, last = self.lose(1, 2)
        for number in (signal.SIGKILL, signal.SIGTERM) * 3:
            asked = subprocess.Popen(self.node.ctl_command("log", "accept-loss", "--yes", str(first), str(last)),
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.node.env)
            pid = self.node.kill("walsvc", number)
            out, err = asked.communicate(timeout=60)
            self.assertEqual(asked.returncode, 0, err)
            self.assertIn(b"given up", out)
            wait_for(lambda killed=pid: self.node.pid("walsvc") != killed, "another walsvc")
        self.node.wait_ready()
        self.assertEqual(self.verify()[0], 0)
        self.node.wait_durable(LINES)


if __name__ == "__main__":
    unittest.main()
