"""Writes that depend on what is there: what holds, what does not, and that nothing ever comes between; and whether a
write landed that ended without an answer."""
import json
import os
import random
import signal
import threading
import time
import unittest
import uuid

from caller import Caller
from cluster import SUPERVISOR, TIMES, Cluster
from shanghai import SERVICES, Node, wait_for

VIEW = "query: {view: true}"
WINS = 400 if os.environ.get("SHANGHAI_LONG") else 60
KILLS = 40 if os.environ.get("SHANGHAI_LONG") else 6
ERROR, APPEND, APPEND_REPLY, KV_GET, KV_GET_REPLY, APPEND_IF, PRODUCER_STATUS = 3, 16, 17, 128, 129, 144, 146
BAD_REQUEST, TOO_LARGE, CONFLICT, CLOCK_DRIFT = 1, 2, 6, 20
STREAM, KEY = 0, 1
PUT = 1
NOBODY = "11111111-2222-4333-8444-555555555555"
NOTHING = (bytes(16), 0)


def entries_of(node):
    """All of its log."""
    lines = node.ctl("--format", "json", "read", "--from", "1", "--count", "1000000").stdout.splitlines()
    return [json.loads(line) for line in lines]


class Client:
    """Speaks to querysvc, or to walsvc, by hand: a producer of its own, one request at a time."""

    def __init__(self, test, node, service="query"):
        self.caller = Caller(test, f"{node.run}/{service}.in", f"{node.run}/{service}.out")
        self.producer, self.epoch, self.sequence = random.randbytes(16), 1, 0

    def ask_append(self, kind, entries, more):
        answer, body = self.caller.ask(kind, {1: self.producer, 2: self.epoch, 3: self.sequence + 1, 4: 0, 5: 0,
                                              6: entries, **more})
        self.sequence += answer == APPEND_REPLY
        return answer, body

    def append(self, entries, **more):
        return self.ask_append(APPEND, entries, more.get("fields", {}))

    def append_if(self, entries, conditions, **more):
        fields = {8: [[kind, name, *at] for kind, name, at in conditions], 9: 20000}
        return self.ask_append(APPEND_IF, entries, {**fields, **more.get("fields", {})})

    def get(self, key, token):
        """(value or None, (log, LSN)): not older than the token."""
        kind, body = self.caller.ask(KV_GET, {1: [key], 2: [[log, lsn] for log, lsn in token.items()], 3: 20000})
        assert kind == KV_GET_REPLY, body
        row, = body[1]
        return (None, NOTHING) if row is None or row[1] is None else (row[1], (row[3], row[4]))


class ConditionsTest(unittest.TestCase):
    """What it writes and reads is of one session: without, a node may show what was there before for a moment."""

    def session(self):
        return os.path.join(self.node.dir, f"{self.id()}.session")

    def refused(self, code, error, *args, **options):
        done = self.node.ctl("--format", "json", *args, check=False, **options)
        self.assertEqual(done.returncode, code, done)
        said = json.loads(done.stderr)
        self.assertEqual(said["error"], error, said)
        return said

    def put(self, *args, **options):
        """LOG:LSN of what was written."""
        done = self.node.json("kv", "put", "--session", self.session(), *args, **options)
        return f"{done['log']}:{done['lsn']}"

    def value(self, key):
        """None: there is none."""
        done = self.node.ctl("--format", "raw", "kv", "get", "--session", self.session(), key, check=False)
        return done.stdout[:-1] if done.returncode == 0 else None

    def version(self, key):
        row, = self.node.json("kv", "get", "--session", self.session(), key)
        return f"{row['version']['log']}:{row['version']['lsn']}"


class Keys(ConditionsTest):
    @classmethod
    def setUpClass(cls):
        cls.node = Node(VIEW).start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.key = f"{self.id().rsplit('.', 1)[1]}/"

    def test_a_value_is_replaced_only_when_it_is_the_one_that_is_named(self):
        first = self.put(self.key, "1")
        second = self.put("--if-version", first, self.key, "2")
        said = self.refused(1, "conflict", "kv", "put", "--if-version", first, self.key, "3")
        self.assertEqual(said["condition"], 0)
        self.assertEqual(f"{said['current']['log']}:{said['current']['lsn']}", second)
        self.assertIn(second, said["text"])
        third = self.put("--if-version", second, self.key, "3")
        self.assertEqual((self.value(self.key), self.version(self.key)), (b"3", third))

    def test_a_key_that_has_no_value_gets_one_once(self):
        version = self.put("--if-absent", self.key, "1")
        said = self.refused(1, "conflict", "kv", "put", "--if-absent", self.key, "2")
        self.assertEqual(f"{said['current']['log']}:{said['current']['lsn']}", version)
        self.node.ctl("kv", "del", "--if-version", version, self.key)
        said = self.refused(1, "conflict", "kv", "del", "--if-version", version, self.key)
        self.assertIsNone(said["current"])
        self.assertIn("no value", said["text"])
        self.put("--if-absent", self.key, "2")
        self.node.ctl("kv", "incr", self.key + "n")
        self.put("--if-absent", self.key + "n", "a counter is no value")
        self.assertEqual(self.value(self.key), b"2")

    def test_an_expired_value_is_none(self):
        version = self.put("--ttl", "1ms", self.key, "short")
        wait_for(lambda: self.value(self.key) is None, "the end of 1 ms")
        self.assertIsNone(self.refused(1, "conflict", "kv", "put", "--if-version", version, self.key, "x")["current"])
        self.put("--if-absent", self.key, "again")
        self.assertEqual(self.value(self.key), b"again")

    def test_a_txn_needs_all_its_conditions(self):
        a, b, c = (self.key + name for name in "abc")
        at_a = self.put(a, "1")
        txn = f"if {a} {at_a}\nif {b} absent\nput {c} done\nput {a} 2\n".encode()
        self.node.ctl("kv", "txn", input=txn)
        self.assertEqual(self.refused(1, "conflict", "kv", "txn", input=txn)["condition"], 0)
        self.put(b, "there")
        said = self.refused(1, "conflict", "kv", "txn", input=f"if {a} {self.version(a)}\nif {b} absent\ndel {c}\n".encode())
        self.assertEqual(said["condition"], 1)
        self.assertEqual(self.value(c), b"done", "nothing of a txn that is refused applies")

    def test_a_session_is_told_what_it_wrote(self):
        file = os.path.join(self.node.dir, "conditional.session")
        version = self.put("--session", file, "--if-absent", self.key, "1")
        with open(file, encoding="ascii") as text:
            seen = dict(line.split() for line in text)
        self.assertEqual(f"{version.split(':')[0]}:{seen[version.split(':')[0]]}", version)
        self.assertGreater(int(seen["hlc"]) >> 16, 1_700_000_000_000)
        self.assertEqual(self.node.ctl("--format", "raw", "kv", "get", "--session", file, self.key).stdout, b"1\n")

    def test_a_stream_goes_on_only_where_its_last_event_is_named(self):
        def append(*args):
            return self.node.json("append", "--stream", self.key, *args)
        append("--if-last", "none", "1", "2")
        said = self.refused(1, "conflict", "append", "--stream", self.key, "--if-last", "none", "x")
        at = f"{said['current']['log']}:{said['current']['lsn']}"
        self.assertIn(at, said["text"])
        done = append("--if-last", at, "3")["last"]
        self.assertEqual(self.refused(1, "conflict", "append", "--stream", self.key, "--if-last", at, "x")["current"]["lsn"],
                         done["lsn"])
        direct = append("4")["last"]
        said = self.refused(1, "conflict", "append", "--stream", self.key, "--if-last", f"{done['log']}:{done['lsn']}", "x")
        self.assertEqual((said["current"]["log"], said["current"]["lsn"]), (direct["log"], direct["lsn"]))
        self.put(self.key, "a key of that name is no event")
        append("--if-last", f"{direct['log']}:{direct['lsn']}", "5")
        found = [entry["payload"] for entry in entries_of(self.node) if entry.get("stream") == self.key]
        self.assertEqual(found, ["1", "2", "3", "4", "5"])

    def test_what_is_no_condition_is_refused_here(self):
        good = self.put(self.key, "1")
        log = good.split(":", maxsplit=1)[0]
        for bad in ("", "x", log, f"{log}:", f"{log}:0", f"{log}:-1", f"{log}:1x", f"{log}: 1", f"{log[:-1]}:1",
                    f"{log}x:1", f"{log}:18446744073709551616", "absent", "none"):
            with self.subTest(bad=bad):
                self.assertEqual(self.node.ctl("kv", "put", "--if-version", bad, self.key, "x", check=False).returncode, 2)
        for args, text in ((("put", "--if-version", good, "--if-absent", self.key, "x"), b""),
                           (("del", "--if-version", good, self.key, "other"), b""),
                           (("txn",), f"if {self.key}\nput a b\n".encode()), (("txn",), b"if a absent\n"),
                           (("txn",), b"if a absent b\nput a b\n"), (("txn",), b"if a b\nput a b\n"),
                           (("txn",), b"if a absent\n" * 257 + b"put a b\n")):
            with self.subTest(args=args, text=text):
                self.assertEqual(self.node.ctl("kv", *args, input=text, check=False).returncode, 2)
        for args in (("--if-last", good, "-"), ("--if-last", "absent", "x"), ("--if-last", "", "x")):
            self.assertEqual(self.node.ctl("append", *args, check=False).returncode, 2)
        self.assertEqual(self.value(self.key), b"1")

    def test_messages_that_are_none_are_refused(self):
        client = Client(self, self.node)
        put, key = [[PUT, b"k", b"v"]], [KEY, b"k", *NOTHING]
        none = {1: bytes(16)}
        for code, fields in ((BAD_REQUEST, {8: []}), (TOO_LARGE, {8: [key] * 257}), (BAD_REQUEST, {8: b"k"}),
                             (BAD_REQUEST, {8: [[2, b"k", *NOTHING]]}), (BAD_REQUEST, {8: [[KEY, b"", *NOTHING]]}),
                             (BAD_REQUEST, {8: [[KEY, "k", *NOTHING]]}), (BAD_REQUEST, {8: [[KEY, b"k", bytes(15), 0]]}),
                             (BAD_REQUEST, {8: [[KEY, b"k", bytes(16)]]}), (BAD_REQUEST, {8: [[KEY, b"k", bytes(16), "1"]]}),
                             (TOO_LARGE, {8: [[KEY, bytes(4097), *NOTHING]]}),
                             (TOO_LARGE, {8: [[STREAM, bytes(256), *NOTHING]]}), (TOO_LARGE, {9: 60001}),
                             (BAD_REQUEST, none), (BAD_REQUEST, {3: 0}), (BAD_REQUEST, {6: []}),
                             (TOO_LARGE, {8: [[KEY, bytes(4096), *NOTHING]] * 256 + [[KEY, bytes(40000), *NOTHING]] * 2})):
            with self.subTest(fields=str(fields)[:80]):
                kind, body = client.append_if(put, [(KEY, b"k", NOTHING)], fields=fields)
                self.assertEqual((kind, body[1]), (ERROR, code))
        for fields in ({}, {1: bytes(16), 2: 1, 3: 1}, {1: bytes(range(16)), 2: 1, 3: 0}, {1: b"x", 2: 1, 3: 1}):
            kind, body = client.caller.ask(PRODUCER_STATUS, fields)
            self.assertEqual((kind, body[1]), (ERROR, BAD_REQUEST))
        kind, body = client.append_if(put, [(KEY, b"messages", NOTHING)] * 256)
        self.assertEqual(kind, APPEND_REPLY, "it goes on")

    def test_one_that_is_sent_again_gets_its_first_answer(self):
        client, again = Client(self, self.node), Client(self, self.node)
        key = self.key.encode()
        again.producer = client.producer
        append = ([[PUT, key, b"1"]], [(KEY, key, NOTHING)])
        kind, first = client.append_if(*append)
        self.assertEqual(kind, APPEND_REPLY)
        self.put(self.key, "2")
        for _ in range(2):
            again.sequence = 0
            kind, body = again.append_if(*append)
            self.assertEqual((kind, body[1], body[2], body[3]), (APPEND_REPLY, first[1], first[2], 1))
        kind, body = again.append_if(*append)
        self.assertEqual((kind, body[1], body[8][2] > first[2]), (ERROR, CONFLICT, True))
        self.assertEqual(self.value(self.key), b"2")

    def test_a_version_that_is_not_applied_here_is_waited_for(self):
        version = self.put(self.key, "1")
        log, lsn = version.split(":")
        for timeout in ("500ms", "5s", "30s"):  # the client may have no time left for what the node says
            said = self.refused(3, "timeout", "--timeout", timeout, "kv", "put", "--if-version",
                                f"{log}:{int(lsn) + 1000000}", self.key, "2")
            if "wanted" in said["text"]:
                break
        self.assertIn(f"wanted up to LSN {int(lsn) + 1000000}", said["text"])
        self.refused(1, "conflict", "kv", "put", "--if-version", f"{NOBODY}:1", self.key, "2")
        self.assertEqual(self.value(self.key), b"1")


class Races(ConditionsTest):
    """Each value names the LSN that it takes the place of: in the log that must be the one before."""

    def check_chain(self, key, entries, conditional):
        before = 0
        for entry in entries:
            if entry["kind"] != "put" or entry["key"] != key:
                continue
            value = json.loads(entry["payload"])
            if value["by"] in conditional:
                self.assertEqual(value["prev"], before, f"{entry} behind LSN {before}")
            before = entry["lsn"]

    def run_all(self, threads):
        failures = []

        def guarded(work):
            try:
                work()
            except BaseException as error:  # pylint: disable=broad-except
                failures.append(error)
                raise
        running = [threading.Thread(target=guarded, args=(work,)) for work in threads]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        self.assertEqual(failures, [])

    def test_of_many_who_count_up_one_key_none_is_lost(self):
        names = [f"c{i}" for i in range(6)]
        done, conflicts = threading.Event(), []
        with Node(VIEW).start() as self.node:
            self.value("key")  # is answered when the view is open

            def count_up(name):
                client, token, wins = Client(self, self.node), {}, 0
                while wins < WINS:
                    key = random.choice((b"alone", b"shared"))
                    value, at = client.get(key, token)
                    number = 0 if value is None else json.loads(value)["n"]
                    new = json.dumps({"by": name, "n": number + 1, "prev": at[1]}).encode()
                    kind, body = client.append_if([[PUT, key, new]], [(KEY, key, at)])
                    if kind == APPEND_REPLY:
                        wins += 1
                        token[body[1]] = body[2]
                        continue
                    self.assertEqual((kind, body[1]), (ERROR, CONFLICT), body)
                    failed, log, lsn, _ = body[8]
                    self.assertEqual(failed, 0)
                    self.assertGreater(lsn, at[1])
                    token[log] = lsn
                    conflicts.append(key)

            def write_anyhow():
                client, n = Client(self, self.node, "wal"), 0
                while not done.is_set():
                    n += 1
                    blind = json.dumps({"by": "direct", "n": n}).encode()
                    kind, body = client.append([[PUT, b"noise %d" % (n % 50), blind], [PUT, b"shared", blind]]
                                               if n % 8 == 0 else [[PUT, b"noise %d" % (n % 50), blind]])
                    self.assertEqual(kind, APPEND_REPLY, body)

            direct = threading.Thread(target=write_anyhow)
            direct.start()
            try:
                self.run_all([lambda name=name: count_up(name) for name in names])
            finally:
                done.set()
                direct.join()
            entries = entries_of(self.node)
            self.check_chain("shared", entries, names)
            self.check_chain("alone", entries, names)
            alone = [json.loads(entry["payload"]) for entry in entries if entry.get("key") == "alone"]
            self.assertEqual([value["n"] for value in alone], list(range(1, len(alone) + 1)))
            by_names = [entry for entry in entries if entry.get("key") in ("alone", "shared")
                        and json.loads(entry["payload"])["by"] in names]
            self.assertEqual(len(by_names), WINS * len(names), "each that won is there once, and no other")
            self.assertGreater(len(conflicts), 0, "they met")

    def test_of_many_who_append_to_one_stream_each_knows_the_one_before(self):
        names = [f"c{i}" for i in range(6)]
        done, conflicts = threading.Event(), []
        with Node(VIEW).start() as self.node:
            self.value("key")  # is answered when the view is open

            def append_on(name):
                client, at, wins = Client(self, self.node), NOTHING, 0
                while wins < WINS:
                    event = json.dumps({"by": name, "prev": at[1]}).encode()
                    kind, body = client.append_if([[0, "s", event]], [(STREAM, b"s", at)])
                    if kind == APPEND_REPLY:
                        wins += 1
                        at = body[1], body[2]
                    else:
                        self.assertEqual((kind, body[1]), (ERROR, CONFLICT), body)
                        self.assertGreater(body[8][2], at[1])
                        at = body[8][1], body[8][2]
                        conflicts.append(name)

            def append_anyhow():
                client, n = Client(self, self.node, "wal"), 0
                while not done.is_set():
                    n += 1
                    stream = "s" if n % 8 == 0 else f"noise {n % 50}"
                    kind, body = client.append([[0, stream, json.dumps({"by": "direct"}).encode()]])
                    self.assertEqual(kind, APPEND_REPLY, body)
            direct = threading.Thread(target=append_anyhow)
            direct.start()
            try:
                self.run_all([lambda name=name: append_on(name) for name in names])
            finally:
                done.set()
                direct.join()
            before, landed = 0, 0
            for entry in entries_of(self.node):
                if entry.get("stream") != "s":
                    continue
                event = json.loads(entry["payload"])
                if event["by"] != "direct":
                    self.assertEqual(event["prev"], before, entry)
                    landed += 1
                before = entry["lsn"]
            self.assertEqual(landed, WINS * len(names))
            self.assertGreater(len(conflicts), 0, "they met")

    def cas_by_ctl(self, name, ends, tried):
        """Counts up with shanghaictl, whatever is killed; notes what became of each try."""
        n = 0
        while not ends.is_set():
            n += 1
            got = self.node.ctl("--format", "json", "kv", "get", "key", check=False)
            if got.returncode == 3:
                continue
            rows = json.loads(got.stdout)
            at = rows[0]["version"] if rows else None
            mark = {"by": name, "n": n, "prev": at["lsn"] if at else 0}
            condition = ["--if-version", f"{at['log']}:{at['lsn']}"] if at else ["--if-absent"]
            done = self.node.ctl("--format", "json", "--timeout", "10s", "kv", "put", *condition, "key",
                                 json.dumps(mark), check=False)
            tried.append((mark, done))

    def test_kills_between_lose_nothing_and_let_nothing_through(self):
        names = [f"c{i}" for i in range(3)]
        with Node(VIEW, SUPERVISOR).start() as self.node:
            ends, tried = threading.Event(), {name: [] for name in names}

            def kill():
                try:
                    for i in range(KILLS):
                        before = sum(len(one) for one in tried.values())
                        wait_for(lambda before=before: sum(len(one) for one in tried.values()) > before + 8,
                                 "some tries", 120)
                        self.node.kill(("querysvc", "walsvc")[i % 2])
                    wait_for(lambda: sum(done.returncode == 0 for one in tried.values() for _, done in one) > KILLS,
                             "so many to win", 120)
                finally:
                    ends.set()
            self.run_all([kill] + [lambda name=name: self.cas_by_ctl(name, ends, tried[name]) for name in names])
            entries = [entry for entry in entries_of(self.node) if entry.get("key") == "key"]
            self.check_chain("key", entries, names)
            landed = {(value["by"], value["n"]): entry["lsn"] for entry in entries
                      for value in (json.loads(entry["payload"]),)}
            self.assertEqual(len(landed), len(entries), "none twice")
            wins = 0
            for mark, done in (one for name in names for one in tried[name]):
                lsn = landed.get((mark["by"], mark["n"]))
                if done.returncode == 0:
                    wins += 1
                    self.assertEqual(json.loads(done.stdout)["lsn"], lsn)
                elif done.returncode == 1:
                    self.assertIsNone(lsn, f"{mark} was told that there is a conflict: {done}")
                else:
                    self.check_unknown(json.loads(done.stderr), lsn)
            self.assertGreater(wins, KILLS)

    def check_unknown(self, said, lsn):
        """The log says the same as its status."""
        if "request" not in said:
            self.assertIsNone(lsn, said)
            return
        request = said["request"]
        done = self.node.ctl("--format", "json", "producer", "status", request["producer"], str(request["sequence"]),
                             "--epoch", str(request["epoch"]), check=False)
        state = json.loads(done.stdout)
        self.assertEqual((state["state"], state.get("lsn")), ("landed", lsn) if lsn else ("not_landed", None), said)


class Producers(ConditionsTest):
    def setUp(self):
        services = ", ".join(f"{{service: {name}, watchdog: 1h}}" for name in SERVICES)  # walsvc is to stand still for long
        self.node = Node(VIEW, SUPERVISOR.replace("{", f"{{children: [{services}], ", 1)).start()
        self.addCleanup(self.node.close)

    def status(self, request):
        done = self.node.ctl("--format", "json", "producer", "status", request["producer"], str(request["sequence"]),
                             "--epoch", str(request["epoch"]), check=False)
        self.assertEqual(done.stderr, b"")
        said = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if said["state"] == "landed" else 1)
        return said

    def test_it_says_where_a_request_landed_and_goes_on_saying_so(self):
        client = Client(self, self.node, "wal")
        client.append([[PUT, b"a", b"1"]])
        request = {"producer": str(uuid.UUID(bytes=client.producer)), "sequence": 2, "epoch": 1}
        self.assertEqual(self.status(request)["state"], "not_landed")
        _, body = client.append([[PUT, b"a", b"2"], [PUT, b"b", b"2"]])
        for kill in ("querysvc", "walsvc"):
            said = self.status(request)
            self.assertEqual((said["state"], said["lsn"], said["count"]), ("landed", body[2], 2))
            self.node.kill(kill)
        self.assertEqual(self.status(request)["state"], "landed")
        text = self.node.ctl("producer", "status", request["producer"], "2").stdout.decode()
        self.assertIn("landed", text)
        again = Client(self, self.node, "wal")
        again.producer, again.epoch = client.producer, 2
        self.assertEqual(again.append([[PUT, b"a", b"3"]])[0], APPEND_REPLY)
        self.assertEqual(self.status(request)["state"], "fenced")
        self.assertEqual(self.node.ctl("producer", "status", request["producer"], "2", endpoint=self.node.tcp,
                                       check=False).returncode, 1)

    def test_words_that_name_no_request_are_refused(self):
        for args in (("x", "1"), (NOBODY, "0"), (NOBODY, "-1"), (NOBODY, "1x"), (NOBODY, ""), (NOBODY,),
                     (NOBODY, "18446744073709551616")):
            self.assertEqual(self.node.ctl("producer", "status", *args, check=False).returncode, 2, args)
        self.assertEqual(self.status({"producer": NOBODY, "sequence": 1, "epoch": 1})["state"], "not_landed")

    def try_without_an_answer(self, *args):
        """While walsvc stands still, and querysvc has it: what its error names."""
        pid = self.node.pid("walsvc")
        os.kill(pid, signal.SIGSTOP)
        try:
            for timeout in ("1s", "5s", "30s"):  # it may be over before anything was sent
                said = self.refused(3, "timeout", "--timeout", timeout, *args, endpoint=self.node.tcp)
                if "request" in said:
                    break
        except BaseException:
            os.kill(pid, signal.SIGCONT)
            raise
        self.assertIn("request", said)
        self.assertIn(f"shanghaictl producer status {said['request']['producer']}", said["text"])
        return pid, said["request"]

    def test_a_write_without_an_answer_names_its_request(self):
        self.node.ctl("kv", "put", "k", "before")
        for args in (("append", "x", "y"), ("kv", "put", "k", "v"), ("kv", "put", "--if-absent", "new", "v")):
            with self.subTest(args=args):
                before = len(entries_of(self.node))
                pid, request = self.try_without_an_answer(*args)
                os.kill(pid, signal.SIGKILL)
                self.node.wait_ready()
                state = self.status(request)
                entries = entries_of(self.node)
                if state["state"] == "landed":
                    count = state["count"]
                    self.assertEqual(state["lsn"], len(entries) - count + 1)
                else:
                    self.assertEqual(state["state"], "not_landed")
                    count = 0
                self.assertEqual(len(entries), before + count)

    def test_a_write_that_lands_after_its_time_is_found(self):
        self.node.ctl("kv", "put", "k", "before")
        pid, request = self.try_without_an_answer("kv", "put", "k", "late")
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: self.value("k") == b"late", "the late write")
        said = self.status(request)
        self.assertEqual((said["state"], said["lsn"]), ("landed", entries_of(self.node)[-1]["lsn"]))


class Sessions(unittest.TestCase):
    def test_what_was_seen_comes_before_what_was_written_then_on_all_nodes(self):
        with Cluster(3, TIMES + "\n" + VIEW, SUPERVISOR).start() as cluster:
            first, second, third = cluster.nodes.values()
            file = os.path.join(first.dir, "session")

            def append(node, value):
                return node.json("append", "--stream", "s", "--session", file, value)["last"]

            def events(node):
                return node.ctl("--format", "raw", "read", "--stream", "s").stdout.decode().split()
            begin = append(second, "begin")
            other = first.json("append", "--stream", "other", "x")["last"]
            for node in (first, second, third):  # none waits for what is in a log that it does not hold yet
                wait_for(lambda node=node: events(node) == ["begin"], f"{node.name} to have the first event")
                for log in (begin["log"], other["log"]):
                    wait_for(lambda node=node, log=log: node.ctl("read", "--log", log, check=False).stdout,
                             f"{node.name} to have both logs")
            first.stop_service("replsvc")  # what is appended there reaches nobody
            try:
                cause = append(first, "cause")
                effect = append(second, "effect")
                self.assertNotEqual(cause["log"], effect["log"])
                wait_for(lambda: b"effect" in third.ctl("--format", "raw", "read", "--log", effect["log"], check=False).stdout,
                         "the copy to have the effect")
                self.assertEqual(events(third), ["begin"], "it is not applied before its cause")
            finally:
                first.ctl("svc", "start", "replsvc")
            for node in (first, second, third):
                wait_for(lambda node=node: "effect" in events(node), "the effect")
                self.assertEqual(events(node), ["begin", "cause", "effect"])
            number = [entry["kind"] for entry in entries_of(second)]
            self.assertEqual(len(number), 3, number)
            append(second, "again")
            self.assertEqual(len(entries_of(second)), 5, "another command knows nothing of what that log was told")
            second.ctl("append", "--stream", "s", "--session", file, "--batch", "1", "x", "y", "z")
            self.assertEqual(len(entries_of(second)), 9, "but within a command it is told once")


class Clocks(unittest.TestCase):
    """A node whose clock is ahead: played by an append that asks for such an HLC."""

    def test_a_write_after_a_read_wins_whatever_the_clocks_say(self):
        with Cluster(2, TIMES + "\n" + VIEW).start() as cluster:
            ahead, behind = cluster["n1"], cluster["n2"]
            file = os.path.join(behind.dir, "session")
            client = Client(self, ahead, "wal")
            ahead_ms = int(time.time() * 1000) + 50000
            kind, body = client.append([[PUT, b"k", b"ahead"], [PUT, b"other", b"ahead"], [2, b"gone"]],
                                       fields={7: ahead_ms << 16})
            self.assertEqual(kind, APPEND_REPLY)
            kind, body = client.append([[PUT, b"k", b"x"]], fields={7: int(time.time() * 1000) + 120000 << 16})
            self.assertEqual((kind, body[1]), (ERROR, CLOCK_DRIFT))

            def get(node, key, *args):
                return node.ctl("--format", "raw", "kv", "get", *args, key, check=False).stdout.strip()
            wait_for(lambda: get(behind, "k") == b"ahead", "the write of the node that is ahead")
            behind.ctl("kv", "put", "other", "blind")
            self.assertEqual(get(behind, "k", "--session", file), b"ahead")
            self.assertEqual(get(behind, "gone", "--session", file), b"", "a tombstone is seen too")
            row, = behind.json("kv", "get", "--session", file, "other")
            self.assertEqual(row["value"], "ahead", "who has not read it is older")
            behind.ctl("kv", "put", "--if-version", f"{row['version']['log']}:{row['version']['lsn']}", "other",
                       "on condition")
            done = behind.json("kv", "put", "--session", file, "k", "after")
            behind.ctl("kv", "put", "--session", file, "gone", "here again")
            for node in (ahead, behind):
                wait_for(lambda node=node: get(node, "other") == b"on condition", "what was written on condition")
                self.assertEqual(get(node, "k", "--session", file), b"after")
                self.assertEqual(get(node, "gone", "--session", file), b"here again")
            self.assertGreaterEqual(done["hlc"] >> 16, ahead_ms)


if __name__ == "__main__":
    unittest.main()
