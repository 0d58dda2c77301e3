"""Writes and reads of keys that no tool would send: each gets a named error or an empty answer, and leaves nothing behind."""
import time
import unittest

from caller import Caller
from shanghai import Node, wait_for
from supervised import Raw, pack

ERROR, APPEND, APPEND_REPLY = 3, 16, 17
KV_GET, KV_GET_REPLY, KV_SCAN, KV_SCAN_REPLY = 128, 129, 130, 131
EVENT, PUT, DELETE, ADD = range(4)
BAD_REQUEST, TOO_LARGE, OVERLOADED, TIMEOUT = 1, 2, 3, 11
KEY_MAX, ENTRIES_MAX, LOGS_MAX, WAITS_MAX, SESSION_REQUESTS = 4096, 65536, 256, 4096, 256
NEGATIVE, FLOAT, NIL, TRUE, EMPTY_MAP = Raw(b"\xff"), Raw(b"\xcb" + bytes(8)), None, True, Raw(b"\x80")
NOT_BYTES = (7, NEGATIVE, FLOAT, NIL, TRUE, "k", [], [b"k"], EMPTY_MAP)
NOT_UNSIGNED = (NEGATIVE, Raw(b"\xd3" + b"\x80" + bytes(7)), FLOAT, NIL, TRUE, "1", b"1", [], EMPTY_MAP)
NOT_SIGNED = (Raw(b"\xcf\x80" + bytes(7)), FLOAT, NIL, TRUE, "1", b"1", [], EMPTY_MAP)
# Entries by their error. One is as good as any place where it stands.
BAD_ENTRIES = {
    BAD_REQUEST: [
        [], 7, "entry", NIL, EMPTY_MAP, [NEGATIVE, b"k", b"v"], ["put", b"k", b"v"], [NIL, b"k"], [[], b"k"],
        [PUT], [PUT, b"k"], [PUT, b"", b"v"], [PUT, b"k", b"v", 1, 1], *([PUT, key, b"v"] for key in NOT_BYTES),
        *([PUT, b"k", value] for value in NOT_BYTES), *([PUT, b"k", b"v", ttl] for ttl in NOT_UNSIGNED),
        [DELETE], [DELETE, b""], [DELETE, b"k", b"v"], [DELETE, b"k", NIL], *([DELETE, key] for key in NOT_BYTES),
        [ADD], [ADD, b"k"], [ADD, b"", 1], [ADD, b"k", 1, 1], *([ADD, key, 1] for key in NOT_BYTES),
        *([ADD, b"k", delta] for delta in NOT_SIGNED)],
    TOO_LARGE: [[PUT, b"k" * (KEY_MAX + 1), b"v"], [DELETE, b"k" * (KEY_MAX + 1)], [ADD, b"k" * (KEY_MAX + 1), 1]],
}
BAD_TOKENS = (7, b"", "token", TRUE, EMPTY_MAP, [7], [[]], [[bytes(16)]], [[bytes(15), 1]], [[bytes(17), 1]], [["x" * 16, 1]],
              [[bytes(16), 1, 1]], *([[bytes(16), lsn]] for lsn in NOT_UNSIGNED), [[bytes(16), 1], 7],
              [[bytes([i // 256, i % 256]) * 8, 0] for i in range(LOGS_MAX + 1)])


def append_of(entries):
    return {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries}


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node("query: {view: true}").start()
        cls.node.ctl("kv", "put", "first", "x")
        wait_for(lambda: cls.node.ctl("kv", "get", "first", check=False).returncode == 0, "the view to be open")

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.pids = {name: self.node.pid(name) for name in ("walsvc", "querysvc")}
        self.caller = self.new_caller()

    def tearDown(self):
        self.assertEqual({name: self.node.pid(name) for name in self.pids}, self.pids, self.node.log_tail())

    def new_caller(self):
        return Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")

    def durable_lsn(self):
        return self.node.json("status")["durable_lsn"]

    def assert_refused(self, code, kind, body):
        answered, said = self.caller.ask(kind, body)
        self.assertEqual((answered, said.get(1)), (ERROR, code), (body, said))

    def rows(self, **fields):
        """Of a scan that is seen by none of the tests' own rules."""
        kind, body = self.caller.ask(KV_SCAN, {1: fields.get("prefix", b""), 2: fields.get("behind", b""), 3: 1000})
        self.assertEqual(kind, KV_SCAN_REPLY, body)
        self.assertFalse(body[2], "no more")
        return [row[0] for row in body[1]]

    # ---------------------------------------------------------------- writes

    def test_a_frame_with_one_bad_entry_is_refused_whole(self):
        before = self.durable_lsn()
        good = [[PUT, b"txn/a", b"x"], [ADD, b"txn/n", 1], [DELETE, b"first"]]
        for code, entries in BAD_ENTRIES.items():
            for i, bad in enumerate(entries):
                at = i % (len(good) + 1)
                with self.subTest(bad=bad):
                    self.assert_refused(code, APPEND, append_of(good[:at] + [bad] + good[at:]))
                    self.assert_refused(code, APPEND, append_of([bad]))
        self.assert_refused(TOO_LARGE, APPEND, append_of([[ADD, b"txn/n", 1]] * (ENTRIES_MAX + 1)))
        for entries in ([], 7, b"x", NIL, EMPTY_MAP):
            self.assert_refused(BAD_REQUEST, APPEND, append_of(entries))
        self.assertEqual(self.durable_lsn(), before)
        self.assertEqual(self.rows(prefix=b"txn/"), [])
        self.assertEqual(self.node.ctl("kv", "get", "first").stdout, b"x\n")

    def test_a_count_that_is_not_that_of_the_entries_is_refused(self):
        entry = pack([PUT, b"txn/b", b"x"])
        for head in (b"\x90", b"\x92", b"\x9f", b"\xdd\xff\xff\xff\xff"):
            before = self.durable_lsn()
            # What does not end where it says makes the whole message malformed: there is no answer, and nothing is done.
            self.new_caller().send(APPEND, append_of(Raw(head + entry)))
            kind, body = self.caller.ask(APPEND, append_of([[EVENT, "", b""]]))
            self.assertEqual(kind, APPEND_REPLY, body)
            self.assertEqual(self.durable_lsn(), before + 1)
        self.assertEqual(self.rows(prefix=b"txn/"), [])

    def test_how_long_a_value_lasts(self):
        """An absurd time is for ever; there is none in the past, since it counts from the write."""
        longest = (1 << 64) - 1
        absurd = (0, longest, 1 << 63, (1 << 63) - int(time.time() * 1000), longest - int(time.time() * 1000) * 2)
        entries = [[PUT, b"ttl/%d" % ttl, b"x", ttl] for ttl in absurd]
        kind, body = self.caller.ask(APPEND, append_of(entries))
        self.assertEqual(kind, APPEND_REPLY, body)
        token = [[body[1], body[2] + len(entries) - 1]]
        kind, body = self.caller.ask(KV_GET, {1: [entry[1] for entry in entries], 2: token, 3: 60000})
        self.assertEqual((kind, [row[5] for row in body[1]]), (KV_GET_REPLY, [0] * len(entries)))
        for ttl in ("0s", "-5s", "-1", "1e3s", "101y", "99999999999999999999s", "", "s"):
            self.assertEqual(self.node.ctl("kv", "put", "--ttl", ttl, "ttl/cli", "v", check=False).returncode, 2, ttl)
        self.assertNotIn(b"ttl/cli", self.rows(prefix=b"ttl/"))

    # ---------------------------------------------------------------- reads

    def test_scans_that_find_nothing(self):
        last = max(self.rows())
        for prefix, behind in ((b"none", b""), (b"first\0", b""), (b"firsu", b""), (b"\xff", b""), (b"\xff" * KEY_MAX, b""),
                               (b"\0" * KEY_MAX, b""), (b"first", b"first"), (b"first", b"g"), (b"", last),
                               (b"", b"\xff" * KEY_MAX), (b"K", b""), (b"Mapplied", b"")):
            with self.subTest(prefix=prefix[:10], behind=behind[:10]):
                self.assertEqual(self.rows(prefix=prefix, behind=behind), [])
        self.assertEqual(self.rows(prefix=b"first", behind=b"e"), [b"first"])

    def test_malformed_tokens_are_refused(self):
        for kind, ask in ((KV_GET, {1: [b"first"], 3: 1}), (KV_SCAN, {3: 1, 6: 1})):
            field = 2 if kind == KV_GET else 5
            for token in BAD_TOKENS:
                self.assert_refused(BAD_REQUEST, kind, ask | {field: token})
            self.assert_refused(TOO_LARGE, kind, ask | {field: [[bytes(16), 0]] * 1000})

    def test_a_token_of_as_many_logs_as_there_can_be(self):
        """That nothing is wanted of; and one of which something is."""
        logs = [bytes([i]) * 16 for i in range(LOGS_MAX)]
        kind, body = self.caller.ask(KV_GET, {1: [b"first"], 2: [[log, 0] for log in logs], 3: 1})
        self.assertEqual((kind, body[1][0][1]), (KV_GET_REPLY, b"x"))
        self.assert_refused(TIMEOUT, KV_GET, {1: [b"first"], 2: [[log, int(log == logs[-1])] for log in logs], 3: 1})
        self.assert_refused(TIMEOUT, KV_GET, {1: [b"first"], 2: [[logs[0], (1 << 64) - 1]], 3: 0})

    def test_more_that_wait_for_a_token_than_may(self):
        """Those beyond are refused; all others are answered when it has come."""
        log = bytes.fromhex(self.node.json("status")["log"].replace("-", ""))
        wanted = {1: [b"first"], 2: [[log, self.durable_lsn() + 1]], 3: 60000}
        callers = [self.new_caller() for _ in range(WAITS_MAX // SESSION_REQUESTS)]
        for caller in callers:
            for _ in range(SESSION_REQUESTS):
                caller.send(KV_GET, wanted)

            def are_taken(of=caller):
                of.poll()
                return of.accepted == SESSION_REQUESTS
            wait_for(are_taken, "all to be taken")
            for other in callers:  # those before too: who asks for nothing for 15 s is dropped
                other.poll()
                self.assertEqual(other.answers, [])
        self.assert_refused(OVERLOADED, KV_GET, wanted)
        self.assertEqual(self.node.ctl("kv", "get", "first").stdout, b"x\n", "who need not wait is served")
        self.node.ctl("kv", "put", "waited", "x")
        for caller in callers:
            for _ in range(SESSION_REQUESTS):
                _, kind, body = caller.take()
                self.assertEqual((kind, body[1][0][1]), (KV_GET_REPLY, b"x"))
        kind, body = self.caller.ask(KV_GET, wanted)
        self.assertEqual((kind, body[1][0][1]), (KV_GET_REPLY, b"x"))


if __name__ == "__main__":
    unittest.main()
