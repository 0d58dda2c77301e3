"""Watches of keys: what is told once, in order, whatever is killed; limits; what is trimmed."""
import json
import os
import subprocess
import threading
import unittest
import uuid

from caller import Caller
from cluster import SUPERVISOR, TIMES, Cluster
from shanghai import Node, wait_for

WRITES = 200 if os.environ.get("SHANGHAI_LONG") else 40
BATCH = 10
KILLS = 3
ERROR, WATCH, WATCH_REPLY = 3, 142, 143
VIEW = "query: {view: true}"


class Watch:
    """`kv watch --format json`, which ends with the block; changes: what it has told so far."""

    def __init__(self, node, *args):
        self.changes = []
        self.process = subprocess.Popen(node.ctl_command("--format", "json", "kv", "watch", *args),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.changes.append(json.loads(line))

    def wait(self, count):
        wait_for(lambda: len(self.changes) >= count or self.process.poll() is not None, f"{count} changes", 120)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait(60)
        self.reader.join()
        self.stderr = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.process.stdout.close()


def place(change):
    return change["version"]["log"], change["version"]["lsn"]


def positions(changes):
    """Behind these, as the file of a session."""
    ends = dict(map(place, changes))
    return "".join(f"{log} {lsn}\n" for log, lsn in ends.items()).encode()


class WatchTest(unittest.TestCase):
    def file(self, text=b""):
        self.files = getattr(self, "files", 0) + 1
        path = os.path.join(self.folder, f"{self.id()}.{self.files}")
        with open(path, "wb") as file:
            file.write(text)
        return path

    def caller(self, node=None):
        run = (node or self.node).run
        return Caller(self, f"{run}/query.in", f"{run}/query.out")

    def refused(self, answer):
        """The name of the error."""
        kind, body = answer
        self.assertEqual(kind, ERROR, body)
        return ("ok", "bad_request", "too_large", "overloaded")[body[1]]

    def now(self, caller):
        kind, body = caller.ask(WATCH, {3: 1})
        self.assertEqual(kind, WATCH_REPLY)
        self.assertEqual(body[1], [])
        return body[2]


class OneNode(WatchTest):
    """Each test has keys of its own."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node("query: {view: true}\nlink: {sessions: 16}").start()
        cls.folder = cls.node.dir

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.prefix = f"{self.id().rsplit('.', 1)[1]}/"

    def key(self, name):
        return self.prefix + name

    def write(self, text):
        return self.node.json("kv", "txn", input=text.encode())

    # ---------------------------------------------------------------- the tool

    def test_each_change_is_told_with_what_was_written(self):
        done = self.write(f"put {self.key('a')} one two\ndel {self.key('a')}\nincr {self.key('n')} -5\nput other x")
        put = self.node.json("kv", "put", "--ttl", "1h", self.key("b"), "")
        version = {"log": done["log"], "hlc": done["hlc"]}
        first = done["lsn"]
        with Watch(self.node, "--from-session", self.file(), "--prefix", self.prefix, "--count", "4") as watch:
            watch.wait(4)
            self.assertEqual(watch.process.wait(60), 0)
        self.assertEqual(watch.changes, [
            {"change": "put", "key": self.key("a"), "value": "one two", "version": {**version, "lsn": first}},
            {"change": "del", "key": self.key("a"), "version": {**version, "lsn": first + 1}},
            {"change": "incr", "key": self.key("n"), "delta": -5, "version": {**version, "lsn": first + 2}},
            {"change": "put", "key": self.key("b"), "value": "", "expires_ms": (put["hlc"] >> 16) + 3600 * 1000,
             "version": {"log": put["log"], "lsn": put["lsn"], "hlc": put["hlc"]}}])

    def test_its_text_is_what_a_txn_takes(self):
        text = f"put {self.key('a')} one  two\ndel {self.key('a')}\nincr {self.key('n')} -5\n"
        self.write(text)
        args = ("kv", "watch", "--from-session", self.file(), "--prefix", self.prefix, "--count", "3")
        self.assertEqual(self.node.ctl(*args).stdout.decode(), text)
        self.assertEqual(self.node.ctl("--format", "raw", *args).stdout.decode(), text)
        self.node.ctl("kv", "put", self.key("escape"), "\x1b[31m")
        shown = self.node.ctl(*args[:-2], "--count", "4").stdout
        self.assertNotIn(b"\x1b", shown, "nothing that moves a terminal")

    def test_without_a_session_it_begins_with_what_comes_then(self):
        self.write(f"put {self.key('before')} x")
        with Watch(self.node, "--prefix", self.prefix, "--count", "1") as watch:
            for number in range(1000):  # it is not told when it has begun
                self.write(f"put {self.key(str(number))} x")
                if watch.changes:
                    break
            watch.wait(1)
        self.assertNotEqual(watch.changes[0]["key"], self.key("before"))

    def test_a_file_that_is_none_is_refused(self):
        for text in (b"x\n", b"\0", b"11111111-2222-4333-8444-555555555555 1"):
            done = self.node.ctl("kv", "watch", "--from-session", self.file(text), check=False)
            self.assertEqual(done.returncode, 3)
            self.assertIn(b"not the file of a session", done.stderr)
        self.assertEqual(self.node.ctl("kv", "watch", "--from-session", "/nowhere", check=False).returncode, 3)
        done = self.node.ctl("kv", "watch", "--prefix", "k" * 4097, check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"4,096 bytes", done.stderr)

    # ---------------------------------------------------------------- messages

    def test_a_watch_waits_until_there_is_a_change(self):
        caller = self.caller()
        position = self.now(caller)
        caller.send(WATCH, {1: self.prefix.encode(), 2: position, 3: 10, 5: 60000})
        done = self.write(f"put {self.key('a')} x")
        number, kind, body = caller.take()
        self.assertEqual((number, kind), (2, WATCH_REPLY))
        log = uuid.UUID(done["log"]).bytes
        self.assertEqual(body[1], [[log, done["lsn"], done["hlc"], 1, self.key("a").encode(), b"x", 0]])
        self.assertIn([log, done["lsn"]], body[2])

    def test_changes_of_other_keys_move_the_position_all_the_same(self):
        caller = self.caller()
        position = self.now(caller)
        done = self.write("put other x")

        def moved():
            kind, body = caller.ask(WATCH, {1: self.prefix.encode(), 2: position, 3: 10, 5: 20})
            self.assertEqual((kind, body[1]), (WATCH_REPLY, []))
            return [uuid.UUID(done["log"]).bytes, done["lsn"]] in body[2]
        wait_for(moved, "the position behind the other key")

    def test_an_answer_is_bounded_and_the_next_goes_on(self):
        self.write("".join(f"put {self.key(f'{i:03}')} {'x' * 1000}\n" for i in range(200)))
        caller = self.caller()
        for limits, most in (({3: 7}, 7), ({3: 1000, 4: 5000}, 5)):
            position, keys = [], []
            while len(keys) < 200:
                kind, body = caller.ask(WATCH, {1: self.prefix.encode(), 2: position, 5: 1000, **limits})
                self.assertEqual(kind, WATCH_REPLY)
                self.assertLessEqual(len(body[1]), most)
                keys += [change[4].decode() for change in body[1]]
                position = body[2]
            self.assertEqual(keys, [self.key(f"{i:03}") for i in range(200)])

    def test_a_position_ahead_of_all_is_kept(self):
        caller = self.caller()
        ahead = [[log, lsn + 1000000] for log, lsn in self.now(caller)] + [[b"n" * 16, 5]]
        kind, body = caller.ask(WATCH, {2: ahead, 3: 10, 5: 20})
        self.assertEqual((kind, body[1], body[2]), (WATCH_REPLY, [], ahead))

    def test_messages_that_are_none_are_refused(self):
        caller = self.caller()
        place = [b"l" * 16, 1]
        many = [[b"%016d" % i, 1] for i in range(256)]
        for body in ({}, {3: 0}, {3: 10001}, {1: "text", 3: 1}, {2: 1, 3: 1}, {2: [1], 3: 1}, {2: [[b"short", 1]], 3: 1},
                     {2: [[b"l" * 16, b"1"]], 3: 1}, {2: [[b"l" * 16]], 3: 1}, {2: [place + [1]], 3: 1}, {2: {1: 2}, 3: 1},
                     {1: bytes(4097), 3: 1}, {2: many + [place], 3: 1}, {3: 1, 5: 60001}):
            self.assertIn(self.refused(caller.ask(WATCH, body)), ("bad_request", "too_large"), body)
        self.assertEqual(self.refused(caller.ask(WATCH, {2: many, 3: 1})), "too_large", "none of them is of this node")
        self.assertEqual(caller.ask(WATCH, {2: many[1:], 3: 1, 5: 0})[0], WATCH_REPLY, "it goes on")

    def test_waiting_watches_are_bounded_and_end_with_their_session(self):
        """256 requests of a session may be unanswered, and 1,024 watches may wait."""
        sessions = [self.caller() for _ in range(4)]
        position = self.now(sessions[0])
        parked = {1: b"nothing/", 2: position, 3: 1, 5: 60000}
        ask = {**parked, 5: 0}
        late = self.caller()
        late.send(WATCH, parked)
        for caller in sessions:
            for _ in range(255 if caller is sessions[0] else 256):
                caller.send(WATCH, parked)

        def is_refused():
            for caller in sessions:  # who asks for nothing for 15 s is dropped
                caller.poll()
            kind, body = late.ask(WATCH, ask)
            return kind == ERROR and self.assertEqual(self.refused((kind, body)), "overloaded") is None
        wait_for(is_refused, "1,024 watches that wait")
        for caller in sessions:
            caller.push.close()
            caller.req.close()

        def has_room():  # of 16 sessions those that have gone make room for new ones
            try:
                return self.caller().ask(WATCH, ask)[0] == WATCH_REPLY
            except (AssertionError, OSError):
                return False
        wait_for(has_room, "room for another watch", 60)


class OtherSettings(WatchTest):
    def start(self, settings):
        self.node = Node(settings).start()
        self.folder = self.node.dir
        self.addCleanup(self.node.close)

    def test_trimmed_entries_are_told_with_where_it_goes_on(self):
        self.start("wal: {segment_size: 1MiB}\nquery: {view: true}")
        self.node.ctl("kv", "put", "first", "x")
        for _ in range(12):
            self.node.ctl("kv", "put", "filler", "-", input=bytes(200 << 10))
        last = self.node.json("kv", "put", "last", "x")

        def trimmed():
            done = self.node.ctl("--format", "json", "log", "trim", "--before", str(last["lsn"]), check=False)
            return done.returncode == 0 and json.loads(done.stdout)["first_lsn"]
        left = wait_for(trimmed, "what is due to be trimmed")
        with Watch(self.node, "--from-session", self.file(), "--prefix", "last", "--count", "1") as watch:
            watch.wait(1)
            self.assertEqual(watch.process.wait(60), 1)
        self.assertEqual([change["key"] for change in watch.changes], ["last"])
        self.assertIn(f"entries 1 to {left - 1} of log {last['log']} are trimmed on this node", watch.stderr)
        log = uuid.UUID(last["log"]).bytes
        kind, body = self.caller().ask(WATCH, {2: [[log, 1]], 3: 1})
        self.assertEqual((kind, body[1], body[3][:3]), (WATCH_REPLY, [], [log, 2, left - 1]))
        self.assertEqual(body[2], [[log, left - 1]])

    def test_a_node_without_a_view_says_so(self):
        self.start("query: {view: false}")
        done = self.node.ctl("--format", "json", "kv", "watch", check=False)
        self.assertEqual((done.returncode, json.loads(done.stderr)["error"]), (3, "forbidden"))


class ThreeNodes(WatchTest):
    def write_on(self, node, failures):
        try:
            for i in range(WRITES):
                node.ctl("kv", "txn", input="".join(f"put w/{node.name}/{i}/{k} x\n" for k in range(BATCH)).encode())
        except AssertionError as error:
            failures.append(error)

    def check(self, changes):
        """All that was written, each once, and each log in its order."""
        self.assertEqual(len(set(map(place, changes))), len(changes), "each once")
        keys = sorted(change["key"] for change in changes)
        self.assertEqual(keys, sorted(f"w/n{n}/{i}/{k}" for n in (1, 2, 3) for i in range(WRITES) for k in range(BATCH)))
        for n in (1, 2, 3):
            mine = [change for change in changes if change["key"].startswith(f"w/n{n}/")]
            self.assertEqual([place(change)[1] for change in mine], sorted(place(change)[1] for change in mine))
            self.assertEqual([change["key"] for change in mine],
                             [f"w/n{n}/{i}/{k}" for i in range(WRITES) for k in range(BATCH)])

    def test_all_is_told_once_while_querysvc_is_killed_and_the_watcher_moves(self):
        with Cluster(settings=f"{TIMES}\n{VIEW}", supervisor=SUPERVISOR).start() as cluster:
            self.folder = cluster["n1"].dir
            failures, told = [], []
            writers = [threading.Thread(target=self.write_on, args=(node, failures)) for node in cluster.nodes.values()]
            for writer in writers:
                writer.start()
            for turn, name in enumerate(("n1", "n2", "n3", "n1")):
                start = len(told)
                with Watch(cluster[name], "--prefix", "w/", "--from-session", self.file(positions(told))) as watch:
                    dead = None
                    for kill in range(KILLS):
                        watch.wait((turn + 1) * 3 * WRITES * BATCH // 5 - start + kill)
                        wait_for(lambda name=name, dead=dead: cluster[name].pid("querysvc") != dead, "another one")
                        dead = cluster[name].kill("querysvc")
                    if turn == 3:
                        for writer in writers:
                            writer.join()
                        watch.wait(3 * WRITES * BATCH - start)
                told += watch.changes
                self.assertEqual(watch.stderr, "")
            self.assertEqual(failures, [])
            self.check(told)

    def test_cause_comes_before_effect_within_what_is_applied(self):
        """One session that goes round the nodes: each write is later than the one before."""
        with Cluster(settings=f"{TIMES}\n{VIEW}").start() as cluster:
            self.folder = cluster["n1"].dir
            session = os.path.join(self.folder, "session")
            for i in range(30):
                node = cluster[f"n{i % 3 + 1}"]
                node.ctl("kv", "get", "--session", session, f"c/{i - 1}", check=i > 0)
                node.ctl("kv", "put", "--session", session, f"c/{i}", "x")
            for node in cluster.nodes.values():
                node.ctl("kv", "get", "--session", session, "c/29")
                done = node.ctl("kv", "watch", "--from-session", self.file(), "--prefix", "c/", "--count", "30")
                self.assertEqual(done.stdout.decode(), "".join(f"put c/{i} x\n" for i in range(30)), node.name)


if __name__ == "__main__":
    unittest.main()
