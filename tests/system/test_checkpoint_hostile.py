"""A member that lies about its view, and strangers that ask for one: nothing of what a liar says is taken, each lie is
named, and the truth is taken afterwards."""
import ctypes
import os
import random
import struct
import unittest

from cluster import TIMES, Cluster
from logs import log_of
from shanghai import wait_for
from supervised import pack, unpack
from test_replication_hostile import Liar, peak_kib
from trimmed import VIEW_SETTINGS, checkpoint_files, fill, lose_view, rows, trim_all, wait_equal_views
from wire import REQ, Wire

SETTINGS = VIEW_SETTINGS + TIMES
ERROR, CHECKPOINT, CHECKPOINT_REPLY = 3, 150, 151
NOT_MEMBER, UNAVAILABLE = 16, 12
LOOK, OPEN, ROWS, CLOSE = range(4)
LAST = 2**64 - 1
GROWTH_MAX_KIB = 64 << 10


class Xxh128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def digest(number, behind, piece):
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_128bits.restype = Xxh128
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    data = struct.pack("<Q", number) + behind + piece
    made = library.XXH3_128bits(data, len(data))
    return struct.pack(">QQ", made.high, made.low)


class ViewLiar(Liar):
    """Stands in for n1's replsvc: says the truth about how far its view is, and lies about its rows; one lie until it is
    told the next one. lie: (step, function of the question that makes a whole message, or a size that is only announced)"""

    def __init__(self, host, port, truth):
        super().__init__(host, port, None, [])
        self.truth, self.lie, self.heard = truth, None, 0

    def answer(self, connection):
        message = self.take(connection, struct.unpack(">Q", self.take(connection, 8))[0])
        (_, kind, _, _, _, _, question), _ = unpack(message[4:])
        if kind != CHECKPOINT:
            return False
        step, lie = self.lie
        lies = step == question[1]
        answer = lie(question) if lies and callable(lie) else self.truth(question)
        size = lie if lies and isinstance(lie, int) else 4 + len(answer)
        connection.sendall(struct.pack(">Q", size) + (b"" if size == lie else message[:4] + answer))
        self.heard += lies
        return True


class Hostile(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(2, SETTINGS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.n1, self.n2 = self.cluster["n1"], self.cluster["n2"]
        fill(self.n1, "true")
        self.logs = {name: bytes.fromhex(log_of(self.cluster, name).replace("-", "")) for name in self.cluster.nodes}
        self.before = wait_equal_views(self.cluster)
        trim_all(self.cluster, log_of(self.cluster, "n1"), 1000)
        with open(os.path.join(self.n1.data, "member"), "rb") as file:
            self.cluster_id = unpack(file.read(), 16)[0][1]

    def message(self, kind, body, version=1, cluster=None, sender="n1"):
        return pack([version, kind, 0, cluster or self.cluster_id, sender, [bytes(16), 0, 0], body])

    def test_who_asks_for_a_view(self):
        for body, sender, code in (({1: LOOK, 2: self.logs["n2"]}, "n9", NOT_MEMBER), ({1: LOOK}, "n2", NOT_MEMBER),
                                   ({1: OPEN, 2: random.randbytes(16), 4: 1}, "n2", NOT_MEMBER),
                                   ({1: 7, 2: self.logs["n2"]}, "n2", 1), ({}, "n2", 1),
                                   ({1: ROWS, 2: self.logs["n2"], 4: 5}, "n2", 8)):
            with Wire((self.n1.host, self.n1.port + 4), REQ) as line:
                line.send(self.message(CHECKPOINT, body, sender=sender))
                (_, kind, _, _, _, _, answer), _ = unpack(line.receive())
                self.assertEqual((kind, answer[1]), (ERROR, code), (body, answer))
        self.assertEqual(checkpoint_files(self.n1), [])
        with Wire((self.n1.host, self.n1.port + 4), REQ) as line:  # who asks is who it says it is, whatever `node` says
            line.send(self.message(CHECKPOINT, {1: OPEN, 2: self.logs["n2"], 3: "n7", 4: 5}, sender="n2"))
            self.assertEqual(unpack(line.receive())[0][1], CHECKPOINT_REPLY)
        holds = self.n1.json("log", "info")["holds"]
        self.assertIn("checkpoint n2", [hold["name"] for hold in holds])

    # ---- lies

    def truth(self, question):
        vector = [[self.logs["n1"], 5000, 1, 1]]
        return self.message(CHECKPOINT_REPLY, {1: vector, 2: 10} if question[1] in (LOOK, OPEN) else {})

    def rows_reply(self, *pairs, more=False, raw=b"", changes=None):
        """With a good digest."""
        piece = b"".join(pack(key) + pack(row) for key, row in pairs) + raw
        return lambda question: self.message(CHECKPOINT_REPLY, {
            3: piece, 4: digest(question[4], question.get(5, b""), piece), 5: more} | (changes or {}))

    def value(self, lsn=1, log=None):
        return b"\1" + struct.pack("<Q", 1) + (log or self.logs["n1"]) + struct.pack("<QQ", lsn, 0) + b"a lie"

    def sums(self, tag=3, lsn=1):
        return bytes([tag]) + self.logs["n1"] + struct.pack("<QQ", lsn, 1000)

    def lies(self):
        """(step, lie, what the log says)"""
        reply, value = self.rows_reply, self.value()
        yield ROWS, reply((b"Kk", value), changes={4: bytes(16)}), "a piece's digest is another one"
        yield ROWS, reply((b"Kk", value), changes={4: b""}), "a piece has no digest"
        yield ROWS, reply(more=True), "an empty piece, and more to come"
        yield ROWS, reply(raw=random.randbytes(1000)), "malformed rows"
        yield ROWS, reply(raw=random.randbytes(12 << 20)), "malformed rows"
        yield ROWS, reply((b"Kb", value), (b"Ka", value)), "malformed rows"
        yield ROWS, reply((b"Kk", value), more=True), "malformed rows"  # the same piece for ever
        yield ROWS, reply((b"Kk", self.value(lsn=5001))), "malformed rows"
        yield ROWS, reply((b"Kk", self.value(log=random.randbytes(16)))), "malformed rows"
        yield ROWS, reply((b"Cc", self.sums(tag=4))), "malformed rows"
        yield ROWS, reply((b"Cc", self.sums(lsn=LAST))), "malformed rows"
        yield ROWS, reply((b"Kk", value), (b"\xffx", b"?")), "rows of a kind not known here"
        yield ROWS, reply((b"Mapplied", b"\x90")), "rows of a kind not known here"
        yield ROWS, lambda _: self.message(CHECKPOINT_REPLY, {}, cluster=random.randbytes(8)), "malformed answer, or of another"
        yield ROWS, lambda _: random.randbytes(500), "malformed answer, or of another"
        yield ROWS, lambda _: self.message(ERROR, {1: UNAVAILABLE, 2: "go away"}), "go away"
        yield ROWS, 1 << 40, "cannot be reached"
        yield OPEN, lambda _: self.message(CHECKPOINT_REPLY, {1: [[self.logs["n1"], 1, 1, 1]] * 2}), "malformed version vector"
        yield OPEN, lambda _: self.message(CHECKPOINT_REPLY, {}), "malformed version vector"
        yield LOOK, lambda _: self.message(CHECKPOINT_REPLY, {1: [[self.logs["n1"], LAST, 1, 1]]}), "malformed version vector"
        yield LOOK, lambda _: self.message(CHECKPOINT_REPLY, {1: [[b"short", 1, 1, 1]]}), "malformed version vector"

    def told(self):
        return len(self.n2.log_lines("the view lacks entries, and no member gives them"))

    def tell(self, liar, step, lie, said):
        """In a life of n2's querysvc of its own."""
        liar.lie = (step, lie)
        heard = liar.heard
        before = len(self.n2.log_lines(f"n1: {said}"))
        self.n2.kill("querysvc")
        wait_for(lambda: liar.heard > heard and len(self.n2.log_lines(f"n1: {said}")) > before, f"{said} to be said", 60, 0.02)
        self.n2.wait_ready()
        def its_rows():
            found = rows(self.n2)
            return None if found is None else [found]
        self.assertEqual(wait_for(its_rows, "rows"), [{}], said)

    def test_lies(self):
        self.n2.kill_all()
        lose_view(self.n2)
        self.n1.ctl("svc", "stop", "replsvc")
        wait_for(lambda: self.n1.tree()["replsvc"]["state"] == "stopped", "n1's replsvc to end")
        liar = ViewLiar(self.n1.host, self.n1.port + 4, self.truth)
        self.addCleanup(liar.close)
        liar.lie = (LOOK, lambda _: random.randbytes(10))
        liar.start()
        self.n2.start()
        replsvc = self.n2.pid("replsvc")
        before_kib = peak_kib(replsvc)
        for step, lie, said in self.lies():
            with self.subTest(said=said):
                self.tell(liar, step, lie, said)
        self.assertEqual(self.n2.pid("replsvc"), replsvc)
        self.assertLess(peak_kib(replsvc) - before_kib, GROWTH_MAX_KIB)
        liar.close()
        self.n1.ctl("svc", "start", "replsvc")
        self.assertEqual(wait_equal_views(self.cluster), self.before)


if __name__ == "__main__":
    unittest.main()
