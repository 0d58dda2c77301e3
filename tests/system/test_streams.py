"""Streams on one node, as a user would, while querysvc is killed, over trims and damage."""
import base64
import json
import os
import random
import signal
import subprocess
import threading
import unittest
import uuid

from caller import Caller
from cluster import SUPERVISOR
from shanghai import Node, wait_for

KILLS = 60 if os.environ.get("SHANGHAI_LONG") else 8
VIEW = "query: {view: true}"
APPEND, APPEND_REPLY, ERROR = 16, 17, 3
STREAM_READ, STREAM_READ_REPLY, STREAM_LIST, STREAM_LIST_REPLY = 134, 135, 136, 137
BAD_REQUEST, TOO_LARGE, TIMEOUT, TRIMMED, CORRUPT = 1, 2, 11, 9, 10
NOBODY = uuid.UUID("11111111-2222-4333-8444-555555555555")


def caller_of(test, node):
    return Caller(test, f"{node.run}/query.in", f"{node.run}/query.out")


def read_ask(stream, position=None, max_bytes=1 << 20, max_events=1 << 40, wait_ms=0, **more):
    ask = {1: stream, 6: max_bytes, 7: max_events, 8: wait_ms}
    if position is not None:
        ask[2] = position
    ask.update({{"since": 3, "from_end": 4, "last": 5, "after": 9}[name]: value for name, value in more.items()})
    return ask


class StreamsTest(unittest.TestCase):
    def refused(self, code, error, *args, node=None):
        """The message."""
        done = (node or self.node).ctl("--format", "json", *args, check=False)
        self.assertEqual(done.returncode, code, done)
        said = json.loads(done.stderr)
        self.assertEqual(said["error"], error, said)
        return said["text"]


class Streams(StreamsTest):
    """Each test has streams and a session of its own."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node(VIEW).start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1]
        self.files = 0

    def file(self):
        self.files += 1
        return os.path.join(self.node.dir, f"{self.name}.{self.files}")

    def append(self, *values, stream=None, options=(), **rest):
        return self.node.json("append", "--stream", stream or self.name, *options, *values, **rest)

    def settle(self, appended):
        """Until the view has what an append wrote: a session's file that says so."""
        path = self.file()
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{appended['last']['log']} {appended['last']['lsn']}\n")
        return path

    def read(self, appended, *args, stream=None):
        """Payloads, once what was appended is there."""
        return self.node.ctl("--format", "raw", "read", "--stream", stream or self.name, "--session",
                             self.settle(appended), *args).stdout.decode().splitlines()

    def list(self, appended, prefix=None):
        rows = self.node.json("stream", "list", "--session", self.settle(appended), prefix or self.name)
        return {row["stream"]: row for row in rows}

    # ---------------------------------------------------------------- reading

    def test_a_stream_has_its_events_and_no_others(self):
        self.append("one", "two")
        self.append("other", stream=self.name + "2")
        self.append("other", stream=self.name[:-1])
        self.node.ctl("kv", "put", "k", "v")
        done = self.append("three")
        self.assertEqual(self.read(done), ["one", "two", "three"])
        self.assertEqual(self.read(done, "--count", "2"), ["one", "two"])
        rows = [json.loads(line) for line in
                self.node.ctl("--format", "json", "read", "--stream", self.name).stdout.splitlines()]
        self.assertEqual((rows[-1]["log"], rows[-1]["lsn"]), (done["last"]["log"], done["last"]["lsn"]))
        self.assertEqual([row["stream"] for row in rows], [self.name] * 3)
        text = self.node.ctl("read", "--stream", self.name).stdout.decode().splitlines()
        self.assertTrue(text[2].startswith(done["last"]["log"][:8]) and text[2].endswith("  three"), text[2])

    def test_a_stream_that_nobody_knows_is_empty(self):
        self.assertEqual(self.node.ctl("read", "--stream", self.name).stdout, b"")
        self.assertEqual(self.node.ctl("tail", "--stream", self.name).stdout, b"")
        self.assertEqual(self.node.json("stream", "list", self.name), [])
        self.assertIn(b"events", self.node.ctl("stream", "list", self.name).stdout)

    def test_headers_come_back(self):
        done = self.append("x", options=("--header", "kind=order", "--header", "empty=", "-H", b"raw=a=\xff"))
        self.read(done)
        row = json.loads(self.node.ctl("--format", "json", "read", "--stream", self.name).stdout)
        self.assertEqual(row["headers"], {"kind": "order", "empty": "", "raw_base64": base64.b64encode(b"a=\xff").decode()})
        text = self.node.ctl("read", "--stream", self.name).stdout
        self.assertTrue(text.endswith(b"  x  [kind=order empty= raw=a=\\xff]\n"), text)
        row = json.loads(self.node.ctl("--format", "json", "read", "--from", str(done["first"]["lsn"]), "--count",
                                       "1").stdout)
        self.assertEqual(row["headers"]["kind"], "order", "of one log too")
        for bad in ("noequals", "=x", b"\xff=x"):
            self.assertEqual(self.node.ctl("append", "--header", bad, "v", check=False).returncode, 2, bad)
        many = [word for i in range(40) for word in ("--header", f"h{i}=v")]
        self.assertEqual(self.node.ctl("append", *many, "v", check=False).returncode, 2)

    def test_more_than_one_answer_misses_none(self):
        large = [bytes([65 + i]) * (700 << 10) for i in range(3)]
        for value in large:
            self.append("-", input=value + b"\n")
        done = self.append("-", input=b"".join(b"%d\n" % i for i in range(30000)))
        self.assertEqual(self.read(done), [value.decode() for value in large] + [str(i) for i in range(30000)])

    def test_events_among_many_others_are_all_found(self):
        entries = [[0, self.name if i % 3 == 0 else f"{self.name}.{i % 7}", b"%d" % i] for i in range(6000)]
        caller = caller_of(self, self.node)
        for at in range(0, len(entries), 100):
            kind, _ = caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries[at:at + 100]})
            self.assertEqual(kind, APPEND_REPLY)
        done = self.append("last")
        self.assertEqual(self.read(done), [str(i) for i in range(0, 6000, 3)] + ["last"])
        self.assertEqual(self.list(done)[self.name]["events"], 2001)

    def test_a_read_begins_at_a_time(self):
        first = self.append("old")
        second = self.append("new")
        rows = [json.loads(line) for line in self.node.ctl("--format", "json", "read", "--stream", self.name, "--session",
                                                           self.settle(second)).stdout.splitlines()]
        caller = caller_of(self, self.node)
        for since, expected in ((0, 2), (rows[0]["hlc"], 2), (rows[0]["hlc"] + 1, 1), (rows[1]["hlc"], 1),
                                (rows[1]["hlc"] + 1, 0)):
            kind, body = caller.ask(STREAM_READ, read_ask(self.name, since=since))
            self.assertEqual((kind, len(body[1])), (STREAM_READ_REPLY, expected))
        self.assertEqual(self.read(first, "--since", "1h"), ["old", "new"])
        self.assertEqual(self.read(first, "--since", "2100-01-01T00:00:00Z"), [])
        self.assertEqual(self.node.ctl("read", "--stream", self.name, "--since", "x", check=False).returncode, 2)

    def test_tail_has_the_last_ones(self):
        done = self.append("-", input=b"".join(b"%d\n" % i for i in range(100)))
        self.read(done)
        for lines, expected in (("0", 0), ("1", 1), ("55", 55), ("1000", 100)):
            out = self.node.ctl("--format", "raw", "tail", "--lines", lines, "--stream", self.name).stdout
            self.assertEqual(out.decode().split(), [str(i) for i in range(100 - expected, 100)])
        self.assertEqual(len(self.node.ctl("tail", "--stream", self.name).stdout.splitlines()), 10)
        self.assertEqual(self.node.ctl("tail", "-n", "1000001", "--stream", self.name, check=False).returncode, 2)

    def test_a_reader_goes_on_where_its_file_says(self):
        file, seen = self.file(), []
        done = self.append("-", input=b"".join(b"%d\n" % i for i in range(50)))
        for count in (0, 1, 7, 30, 100):
            seen += self.read(done, "--position", file, "--count", str(count))
        done = self.append("more")
        seen += self.read(done, "--position", file)
        self.assertEqual(seen, [str(i) for i in range(50)] + ["more"])
        self.assertEqual(self.read(done, "--position", file), [])
        out = self.node.ctl("--format", "raw", "tail", "--lines", "3", "--stream", self.name).stdout
        self.assertEqual(out.split(), [b"48", b"49", b"more"])
        with open(file, "w", encoding="ascii") as out:
            out.write("not a position\n")
        self.assertIn("a line for each log", self.refused(3, "bad_request", "read", "--stream", self.name, "--position", file))

    def test_options_of_all_logs_are_not_for_one(self):
        log = self.node.json("status")["log"]
        for option in (("--position", self.file()), ("--session", self.file())):
            for which in (("--from", "1"), ("--log", log), ("--node", "n1")):
                done = self.node.ctl("read", "--stream", self.name, *option, *which, check=False)
                self.assertEqual((done.returncode, b"for streams of all logs" in done.stderr), (2, True), done)
            self.assertEqual(self.node.ctl("read", *option, check=False).returncode, 2)
        done = self.append("x")
        for which in (("--from", "1"), ("--log", log), ("--node", "n1")):
            out = self.node.ctl("--format", "raw", "read", "--stream", self.name, *which).stdout
            self.assertEqual(out, b"x\n", "of one log, without the view")
        self.read(done)

    # ---------------------------------------------------------------- lists

    def test_a_list_has_counts_and_sizes(self):
        self.append("", "four", stream=f"{self.name}/a")
        self.append("x" * 1000, stream=f"{self.name}/b")
        done = self.append("12345", stream=f"{self.name}/a")
        rows = self.list(done)
        self.assertEqual([(row["events"], row["bytes"], row["logs"]) for row in rows.values()], [(3, 9, 1), (1, 1000, 1)])
        self.assertEqual(list(rows), [f"{self.name}/a", f"{self.name}/b"])
        self.assertEqual(list(self.list(done, f"{self.name}/b")), [f"{self.name}/b"])
        self.assertEqual(self.list(done, f"{self.name}/c"), {})
        event, = [json.loads(line) for line in
                  self.node.ctl("--format", "json", "tail", "-n", "1", "--stream", f"{self.name}/a").stdout.splitlines()]
        self.assertEqual(rows[f"{self.name}/a"]["newest_ms"], event["time_ms"])
        text = self.node.ctl("stream", "list", self.name).stdout.decode()
        self.assertRegex(text, rf"{self.name}/a +3 +9 B +1 ")

    def test_a_list_of_more_than_one_answer_misses_none(self):
        names = [f"{self.name}.{i:04}" for i in range(2300)]
        caller = caller_of(self, self.node)
        kind, _ = caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: [[0, name, b"x"] for name in names]})
        self.assertEqual(kind, APPEND_REPLY)
        done = self.append("x")
        self.assertEqual(list(self.list(done)), [self.name, *names])
        kind, body = caller.ask(STREAM_LIST, {1: self.name, 2: names[17], 3: 2})
        self.assertEqual((kind, [row[0] for row in body[1]], body[2], body[3]),
                         (STREAM_LIST_REPLY, names[17:19], True, names[19]))
        kind, body = caller.ask(STREAM_LIST, {1: self.name, 2: "a", 3: 1})
        self.assertEqual(body[1][0][0], self.name, "what comes before the prefix is not in it")

    def test_the_empty_stream_is_one_too(self):
        done = self.node.json("append", "nameless")
        session = self.settle(done)
        row = self.node.json("stream", "list", "--session", session)[0]
        self.assertEqual(row["stream"], "")
        self.assertGreaterEqual(row["events"], 1)
        out = self.node.ctl("--format", "raw", "read", "--stream", "").stdout
        self.assertIn(b"nameless\n", out)
        self.assertIn(b"(the empty stream)", self.node.ctl("stream", "list").stdout)

    # ---------------------------------------------------------------- waiting

    def test_a_read_waits_for_what_comes(self):
        done = self.append("one")
        self.read(done)
        caller = caller_of(self, self.node)
        _, body = caller.ask(STREAM_READ, read_ask(self.name))
        position = body[2]
        number = caller.send(STREAM_READ, read_ask(self.name, position, wait_ms=60000))
        early = caller.send(STREAM_READ, read_ask(self.name, position, wait_ms=1))
        answered, kind, body = caller.take()
        self.assertEqual((answered, kind, body[1]), (early, STREAM_READ_REPLY, []))
        self.append("elsewhere", stream=self.name + "2")
        self.append("two")
        answered, kind, body = caller.take()
        self.assertEqual((answered, kind, [event[3] for event in body[1]]), (number, STREAM_READ_REPLY, [b"two"]))

    def test_a_token_that_is_ahead_is_a_named_timeout(self):
        file = self.file()
        log = self.node.json("status")["log"]
        with open(file, "w", encoding="ascii") as out:
            out.write(f"{log} 999999999\n")
        for command in (("read", "--stream", self.name), ("stream", "list")):
            def is_named(command=command):
                """Or else the node's answer came too late, which the client says then."""
                done = self.node.ctl("--format", "json", "--timeout", "300ms", *command, "--session", file, check=False)
                self.assertEqual(done.returncode, 3, done)
                said = json.loads(done.stderr)
                wanted = f"log {log} is wanted up to LSN 999999999, and applied here up to "
                return said["error"] == "timeout" and wanted in said["text"]
            wait_for(is_named, f"what '{command[0]}' waits for")

    def test_the_end_says_where_to_go_on(self):
        self.read(self.append("old"))
        caller = caller_of(self, self.node)
        kind, end = caller.ask(STREAM_READ, read_ask(self.name, from_end=True))
        self.assertEqual((kind, end[1], end[3]), (STREAM_READ_REPLY, [], False))
        self.read(self.append("new"))
        kind, body = caller.ask(STREAM_READ, read_ask(self.name, end[2]))
        self.assertEqual([event[3] for event in body[1]], [b"new"])

    # ---------------------------------------------------------------- bad input

    def test_bad_input_is_named(self):
        caller = caller_of(self, self.node)
        log = uuid.UUID(self.node.json("status")["log"]).bytes
        many = [[random.randbytes(16), 1] for _ in range(257)]
        cases = [
            (STREAM_READ, read_ask("s" * 256), TOO_LARGE), (STREAM_READ, read_ask(b"s"), BAD_REQUEST),
            (STREAM_READ, read_ask("s", max_events=0), BAD_REQUEST), (STREAM_READ, {1: "s"}, BAD_REQUEST),
            (STREAM_READ, read_ask("s", wait_ms=60001), TOO_LARGE), (STREAM_READ, read_ask("s", last=1000001), TOO_LARGE),
            (STREAM_READ, read_ask("s", after=[[log]]), BAD_REQUEST),
            (STREAM_LIST, {1: "s" * 256, 3: 1}, TOO_LARGE), (STREAM_LIST, {3: 0}, BAD_REQUEST),
            (STREAM_LIST, {3: 10001}, TOO_LARGE), (STREAM_LIST, {}, BAD_REQUEST), (STREAM_LIST, {3: 1, 4: {}}, BAD_REQUEST),
        ]
        for position in (7, {}, [7], [[log]], [[log, None]], [[log, "x"]], [[log[:15], 1]], [[log, 1, 1]], many):
            cases += [(STREAM_READ, read_ask("s", position), BAD_REQUEST)]
        for kind, body, expected in cases:
            with self.subTest(kind=kind, body=str(body)[:80]):
                answered, error = caller.ask(kind, body)
                self.assertEqual((answered, error[1]), (ERROR, expected))
        kind, body = caller.ask(STREAM_READ, read_ask("s", many[:256]))
        self.assertEqual(kind, ERROR, "more logs than a position has room for")
        kind, body = caller.ask(STREAM_READ, read_ask("s", [[NOBODY.bytes, 5]]))
        self.assertEqual(kind, STREAM_READ_REPLY)
        self.assertIn([NOBODY.bytes, 5], body[2], "a log that this node does not hold stays in it")

    def test_a_writers_past_is_checked(self):
        caller = caller_of(self, self.node)
        event, log = [0, self.name, b"x"], NOBODY.bytes
        for entries, expected in (([event, [4, []]], BAD_REQUEST), ([[4]], BAD_REQUEST), ([[4, 7]], BAD_REQUEST),
                                  ([[4, [[log, 1], 7]]], BAD_REQUEST), ([[4, [[log[:15], 1]]]], BAD_REQUEST),
                                  ([[4, [[log, 1]] * 257]], TOO_LARGE)):
            kind, error = caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries})
            self.assertEqual((kind, error[1]), (ERROR, expected), entries)
        kind, reply = caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: [[4, [[log, 1 << 40]]], event]})
        self.assertEqual((kind, reply[3]), (APPEND_REPLY, 2))
        done = self.append("y")
        self.assertEqual(self.read(done), ["x", "y"], "a log that the node does not hold is not waited for")
        rows = [json.loads(line) for line in
                self.node.ctl("--format", "json", "read", "--from", str(reply[2]), "--count", "2").stdout.splitlines()]
        self.assertEqual([row["kind"] for row in rows], ["after", "event"])


class OverKills(StreamsTest):
    def test_a_reader_that_follows_misses_none(self):
        with Node(VIEW, SUPERVISOR) as self.node:
            self.node.start()
            file = os.path.join(self.node.dir, "position")
            tail = subprocess.Popen(self.node.ctl_command("--format", "raw", "tail", "-f", "--stream", "s", "--since", "1h",
                                                          "--position", file),
                                    stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            seen, sent = [], 0
            reader = threading.Thread(target=lambda: seen.extend(line.decode().strip() for line in tail.stdout))
            reader.start()
            try:
                for _ in range(KILLS):
                    for _ in range(random.randrange(1, 40)):
                        sent += 1
                        self.node.json("append", "--stream", "s", str(sent))
                    self.node.kill("querysvc")
                    wait_for(lambda: self.node.try_json("status"), "querysvc to be back")
                wait_for(lambda: len(seen) >= sent, "all events", 60)
                wait_for(lambda: os.path.exists(file), "the position to be kept")
            finally:
                tail.send_signal(signal.SIGTERM)
                tail.wait(60)
                reader.join()
                tail.stdout.close()
            self.assertEqual(seen, [str(i) for i in range(1, sent + 1)])
            wait_for(lambda: [row["events"] for row in self.node.json("stream", "list")] == [sent], "the list, behind a kill")
            last = self.node.json("append", "--stream", "s", "last")
            with open(os.path.join(self.node.dir, "session"), "w", encoding="ascii") as out:
                out.write(f"{last['last']['log']} {last['last']['lsn']}\n")
            rest = self.node.ctl("--format", "raw", "read", "--stream", "s", "--position", file, "--session",
                                 os.path.join(self.node.dir, "session")).stdout
            self.assertEqual(rest, b"last\n")

    def test_a_view_that_is_gone_is_made_again(self):
        with Node(VIEW, SUPERVISOR) as self.node:
            self.node.start()
            self.node.ctl("append", "--stream", "s", "-", input=b"".join(b"%d\n" % i for i in range(5000)))
            wait_for(lambda: [row["events"] for row in self.node.json("stream", "list")] == [5000], "5,000 events")
            self.node.kill_all()
            for name in os.listdir(os.path.join(self.node.data, "view")):
                os.unlink(os.path.join(self.node.data, "view", name))
            self.node.start()
            wait_for(lambda: [row["events"] for row in self.node.json("stream", "list")] == [5000], "5,000 events again")
            out = self.node.ctl("--format", "raw", "read", "--stream", "s").stdout
            self.assertEqual(out, b"".join(b"%d\n" % i for i in range(5000)))


class Missing(StreamsTest):
    """A log of several segments, half of whose events are of stream a, the others of b; the first of c."""

    LINES = 24000

    def fill(self, node):
        wal = Caller(self, f"{node.run}/wal.in", f"{node.run}/wal.out")
        for first in range(1, self.LINES + 1, 200):
            entries = [[0, "c" if i == 1 else "ab"[i % 2], b"%0200d" % i] for i in range(first, first + 200)]
            kind, _ = wal.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries})
            self.assertEqual(kind, APPEND_REPLY)
        wait_for(lambda: self.events().get("b") == self.LINES // 2 - 1, "all events to be applied", 90)

    def events(self):
        return {row["stream"]: row["events"] for row in self.node.json("stream", "list")}

    def read(self, *args, code=0):
        """Numbers of the events, and what was said."""
        done = self.node.ctl("--format", "raw", "read", "--stream", "a", *args, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return [int(line) for line in done.stdout.split()], done.stderr.decode()

    def test_what_is_trimmed_is_named_and_not_counted(self):
        with Node(f"{VIEW}\nwal: {{segment_size: 1MiB}}", SUPERVISOR) as self.node:
            self.node.start()
            self.fill(self.node)
            bases = [segment["base_lsn"] for segment in self.node.json("log", "info")["segments"]]
            log = self.node.json("status")["log"]
            file = os.path.join(self.node.dir, "position")
            first, _ = self.read("--position", file, "--count", str(bases[2] // 2))
            wait_for(lambda: self.node.ctl("log", "trim", "--before", str(bases[2]), check=False).returncode == 0,
                     "the view to be on disk, and the trim")
            left = [i for i in range(2, self.LINES + 1, 2) if i >= bases[2]]
            got, said = self.read(code=1)
            self.assertEqual(got, left)
            self.assertIn(f"log {log}, LSN ", said)
            self.assertIn("events were removed by retention", said)
            all_left = {"a": len(left), "b": self.LINES + 1 - bases[2] - len(left)}
            wait_for(lambda: self.events() == all_left, "rows of trimmed events to go")
            got, said = self.read(code=1)
            self.assertEqual(got, left)
            self.assertIn(f"trimmed up to LSN {left[0] - 2}", said)
            got, said = self.read("--since", "2100-01-01T00:00:00Z")
            self.assertEqual((got, said), ([], ""))
            self.assertEqual(self.node.ctl("--format", "raw", "tail", "-n", str(len(left) + 5), "--stream", "a").stderr, b"")
            got, said = self.read("--position", file)
            self.assertEqual((first + got, said), (list(range(2, self.LINES + 1, 2)), ""), "it has missed none")
            self.node.kill("querysvc")
            wait_for(lambda: self.node.try_json("stream", "list") is not None, "querysvc to be back")
            wait_for(lambda: self.events().get("a") == len(left), "rows that came back with the kill to go again")
            got, said = self.read(code=1)
            self.assertEqual(got, left)

    def test_damage_is_named_and_the_rest_follows(self):
        with Node(f"{VIEW}\nwal: {{segment_size: 1MiB}}", SUPERVISOR) as self.node:
            self.node.start()
            self.fill(self.node)
            log = self.node.json("status")["log"]
            names = sorted(name for name in os.listdir(self.node.log_dir()) if name.endswith(".seg"))
            path = os.path.join(self.node.log_dir(), names[1])
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) // 2)
                file.write(b"\xff" * 8)
            got, said = self.read(code=1)
            self.assertIn(f"log {log}, LSN ", said)
            self.assertIn(f"damage in {names[1]} at offset", said)
            self.assertIn("events are damaged", said)
            lost = sorted(set(range(2, self.LINES + 1, 2)) - set(got))
            self.assertEqual(got, sorted(got))
            self.assertTrue(0 < len(lost) <= 200, lost)
            self.assertEqual(lost, list(range(lost[0], lost[-1] + 1, 2)), "one piece")
            kind, body = caller_of(self, self.node).ask(STREAM_READ, read_ask("a", [[uuid.UUID(log).bytes, lost[0] - 1]]))
            self.assertEqual(kind, STREAM_READ_REPLY)
            (gap_log, at, behind, code, text), = body[4]
            self.assertEqual((gap_log, at, code), (uuid.UUID(log).bytes, lost[0], CORRUPT), text)
            self.assertTrue(lost[-1] < behind <= lost[-1] + 2)


class WithoutView(StreamsTest):
    def test_a_node_without_a_view_says_so(self):
        with Node("query: {view: false}") as self.node:
            self.node.start()
            self.node.ctl("append", "--stream", "s", "x")
            for command in (("read", "--stream", "s"), ("tail", "--stream", "s"), ("stream", "list")):
                self.assertIn("query.view", self.refused(3, "forbidden", *command))
            self.assertEqual(self.node.ctl("--format", "raw", "read", "--from", "1", "--stream", "s").stdout, b"x\n")


if __name__ == "__main__":
    unittest.main()
