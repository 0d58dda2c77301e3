"""What telemetry promises: counts and events outlive obssvc's deaths, and nothing waits for it; what a daemon counts begins
at 0 with the daemon; and what nobody of ours would tell is refused."""
import json
import os
import random
import subprocess
import threading
import unittest

from caller import Caller
from metrics import fetch, metrics_of
from shanghai import BIN, Node, wait_for
from supervised import Raw, pack

ERROR, TELEMETRY, TELEMETRY_REPLY = 3, 176, 177
BAD_REQUEST, TOO_LARGE, OVERLOADED = 1, 2, 3
SERIES_MAX, SERVICES_MAX, EVENTS_MAX = 4096, 16, 4096
KILLS = 5
SMALL = "wal: {segment_size: 1MiB}"
OFTEN = "intensity: 1000, period: 60s, backoff: false"


class Appender:
    """Appends lines until it is stopped; then appended is how many."""

    def __init__(self, node):
        self.process = subprocess.Popen(node.ctl_command("--format", "json", "append", "--batch", "10", "-"),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.feed)
        self.written = 0
        self.thread.start()

    def feed(self):
        while not self.over.wait(0.002):
            self.process.stdin.write(b"0123456789\n" * 100)
            self.written += 100

    def stop(self):
        self.over.set()
        self.thread.join()
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.process.returncode
        self.appended = json.loads(out)["entries"]


class Telemetry(unittest.TestCase):
    def start(self, settings="", supervisor=f"supervisor: {{{OFTEN}}}"):
        self.node = Node(settings, supervisor)
        self.addCleanup(self.node.close)
        return self.node.start()

    def value(self, name, **labels):
        """As soon as it is told."""
        return wait_for(lambda: [value for value in [metrics_of(self.node).value(name, **labels)] if value is not None],
                        f"{name} {labels}")[0]

    def wait_value(self, name, expected):
        try:
            wait_for(lambda: metrics_of(self.node).value(name) == expected, name)
        except AssertionError as error:
            raise AssertionError(f"{error}: {metrics_of(self.node).value(name)}, not {expected}") from None

    def events(self, kind):
        answer = json.loads(fetch(self.node, "/api/v1/events") or b'{"events": []}')
        return [event for event in answer["events"] if event["kind"] == kind]

    def test_appends_and_counts_go_on_while_obssvc_is_killed(self):
        node = self.start()
        begun = self.value("process_start_time_seconds", service="walsvc")
        counted = first = self.value("wal_entries_total")
        appender = Appender(node)
        try:
            for _ in range(KILLS):
                wait_for(lambda least=counted: self.value("wal_entries_total") > least, "entries to be counted")
                counted = self.value("wal_entries_total")
                killed = node.kill("obssvc")
                wait_for(lambda pid=killed: node.pid("obssvc") != pid, "another obssvc")
                after = self.value("wal_entries_total")
                self.assertGreaterEqual(after, counted)
                self.assertEqual(self.value("process_start_time_seconds", service="walsvc"), begun)
                counted = after
        finally:
            appender.stop()
        self.assertEqual(appender.appended, appender.written)
        self.wait_value("wal_entries_total", first + appender.appended)
        tree = node.tree()
        self.assertEqual({name: tree[name]["restarts"] for name in ("walsvc", "querysvc", "obssvc")},
                         {"walsvc": 0, "querysvc": 0, "obssvc": KILLS})

    def test_a_restarted_daemon_begins_at_0(self):
        node = self.start()
        node.ctl("append", *map(str, range(50)))
        begun = self.value("process_start_time_seconds", service="walsvc")
        self.wait_value("wal_entries_total", 50)
        node.kill("walsvc")
        wait_for(lambda: (metrics_of(node).value("process_start_time_seconds", service="walsvc") or 0) > begun,
                 "the new walsvc to tell of itself")
        self.assertEqual(self.value("wal_entries_total"), 0)
        wait_for(lambda: node.ctl("append", "a", "b", "c", check=False).returncode == 0, "an append")
        self.wait_value("wal_entries_total", 3)

    def test_what_has_happened_while_obssvc_was_away_is_told_then(self):
        """It does not come back before it may: a script stands in its place."""
        node = self.node = Node(SMALL)
        self.addCleanup(node.close)
        gate, program = os.path.join(node.dir, "gate"), os.path.join(node.dir, "obssvc-gated")
        with open(program, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.05; done\nexec {os.path.join(BIN, "obssvc")} "$@"\n')
        os.chmod(program, 0o700)
        with open(node.config, "a", encoding="ascii") as file:
            file.write(f"supervisor: {{{OFTEN}, children: [{{service: walsvc}}, {{service: querysvc}}, "
                       f"{{service: obssvc, program: {program}, start_timeout: 10m}}]}}\n")
        with open(gate, "w", encoding="ascii"):
            pass
        node.start()
        segment = b"".join(random.randbytes(50000).hex().encode() + b"\n" for _ in range(12))  # a little more than one
        node.ctl("append", "-", input=segment)
        first = wait_for(lambda: self.events("segment_sealed"), "the first segment to be sealed")
        os.unlink(gate)
        node.kill("obssvc")
        wait_for(lambda: fetch(node, "/health") is None, "obssvc to be away")
        for _ in range(3):
            node.ctl("append", "-", input=segment)
        entries = node.json("status")["durable_lsn"]
        with open(gate, "w", encoding="ascii"):
            pass
        then = wait_for(lambda: len(events := self.events("segment_sealed")) >= 3 and events, "what has happened meanwhile")
        self.assertGreater(then[0]["time_ms"], first[-1]["time_ms"])  # nothing that was taken comes again
        self.assertEqual({event["service"] for event in then}, {"walsvc"})
        self.wait_value("wal_entries_total", entries)


def telemetry(service="walsvc", boot=bytes(16), series=(), happened=(), lost=0):
    return {1: service, 2: boot, 3: list(series), 4: list(happened), 5: lost}


GOOD_SERIES, GOOD_EVENT = ["shanghai_wal_entries_total", [], 1], [1, 1, 1, "kind", "text", Raw(b"\x80")]
FLOAT, EMPTY_MAP = Raw(b"\xcb" + bytes(8)), Raw(b"\x80")
BAD_SERIES = (7, None, [], [1], ["x"], ["x", []], ["x", [], 1, 1], [7, [], 1], ["x", 7, 1], ["x", [7], 1],
              ["x", ["a"] * 5, 1], ["x", ["a" * 129], 1], ["x", ["\0"], 1],
              ["shanghai_wal_entries_total", [], FLOAT], ["shanghai_wal_entries_total", [], [1, []]],
              ["shanghai_wal_commit_seconds", [], 1],
              ["shanghai_wal_commit_seconds", [], [1]], ["shanghai_wal_commit_seconds", [], [1, [1]]],
              ["shanghai_wal_commit_seconds", [], [1, [53, 1]]], ["shanghai_wal_commit_seconds", [], [1, [2, 1, 1, 1]]],
              ["shanghai_wal_commit_seconds", [], [1, [1, EMPTY_MAP]]])
BAD_EVENTS = (7, None, [], [1, 1, 1, "kind", "text"], ["1", 1, 1, "kind", "text", EMPTY_MAP],
              [1, 1 << 63, 1, "kind", "text", EMPTY_MAP], [1, 1, 4, "kind", "text", EMPTY_MAP],
              [1, 1, 1, "k" * 129, "text", EMPTY_MAP], [1, 1, 1, 7, "text", EMPTY_MAP],
              [1, 1, 1, "kind", b"text", EMPTY_MAP], [1, 1, 1, "kind", "text", []], [1, 1, 1, "kind", "t" * 4097, EMPTY_MAP])
BAD = {
    BAD_REQUEST: [
        {}, telemetry(service=""), telemetry(service=7), telemetry(service="a\0b"),
        telemetry(boot=bytes(15)), telemetry(lost="1"), *({**telemetry(), key: EMPTY_MAP} for key in (3, 4)),
        *({**telemetry(), key: None} for key in (3, 4)),
        *({key: value for key, value in telemetry().items() if key != left_out} for left_out in range(1, 6)),
        *(telemetry(series=[GOOD_SERIES, bad]) for bad in BAD_SERIES),
        *(telemetry(series=[GOOD_SERIES], happened=[GOOD_EVENT, bad]) for bad in BAD_EVENTS),
        telemetry(happened=[GOOD_EVENT] * (EVENTS_MAX + 1))],
    TOO_LARGE: [telemetry(service="x" * 65), telemetry(series=[["x", [], 1]] * (SERIES_MAX + 1))],
}


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node().start()
        wait_for(lambda: metrics_of(cls.node).value("process_open_fds", service="walsvc"), "walsvc to have its place")

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.pid = self.node.pid("obssvc")
        self.caller = Caller(self, f"{self.node.run}/obs.in", f"{self.node.run}/obs.out")

    def tearDown(self):
        wait_for(lambda: metrics_of(self.node).value("process_open_fds", service="walsvc"), "walsvc to be told of")
        self.assertEqual(self.node.pid("obssvc"), self.pid, self.node.log_tail())

    def test_malformed_telemetry_is_refused(self):
        for error, bodies in BAD.items():
            for body in bodies:
                with self.subTest(body=str(body)[:200]):
                    kind, answer = self.caller.ask(TELEMETRY, body)
                    self.assertEqual((kind, answer[1]), (ERROR, error), answer)
        self.assertEqual(self.caller.ask(TELEMETRY, telemetry("tester", happened=[GOOD_EVENT])), (TELEMETRY_REPLY, {1: 1}))

    def test_there_are_only_so_many_services(self):
        answers = [self.caller.ask(TELEMETRY, telemetry(f"service{i}")) for i in range(SERVICES_MAX + 1)]
        self.assertEqual((answers[-1][0], answers[-1][1][1]), (ERROR, OVERLOADED))

    def test_other_messages_are_refused(self):
        for kind in (TELEMETRY_REPLY, 16, 65535):
            answered, answer = self.caller.ask(kind, {})
            self.assertEqual((answered, answer[1]), (ERROR, BAD_REQUEST))

    def test_any_bytes(self):
        chance = random.Random(7)
        good = pack(telemetry("tester", series=[GOOD_SERIES] * 3, happened=[GOOD_EVENT] * 3))
        for _ in range(300):
            body = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                body[chance.randrange(1, len(body))] = chance.randrange(256)
            self.caller.send(TELEMETRY, Raw(bytes(body)))
        self.setUp()  # what is no message at all costs the session
        self.assertEqual(self.caller.ask(TELEMETRY, telemetry("tester"))[0], TELEMETRY_REPLY)


if __name__ == "__main__":
    unittest.main()
