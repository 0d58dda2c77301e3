"""Strangers and liars at the ports where nodes replicate, in a live cluster of three: each is refused, counted and named,
nothing of theirs is stored, replsvc lives on and doesn't grow."""
import os
import random
import socket
import struct
import threading
import unittest

from caller import Caller
from cluster import Cluster
from logs import log_of, positions, wait_equal, wait_lines
from shanghai import BIN, wait_for
from supervised import pack, unpack
from wire import PUSH, REQ, Wire, greeting

ERROR, LOGS, FETCH, FETCH_REPLY, POSITION = 3, 48, 112, 113, 114
BAD_REQUEST, NOT_FOUND, NOT_MEMBER, VERSION_MISMATCH = 1, 8, 16, 19
FROM, LOG, AT, LSN, CHECKSUM, MOST_BYTES, ANEW, WAIT_MS, MOST_ENTRIES = 1, 2, 3, 4, 5, 7, 6, 9, 10  # keys of a fetch
FRAMES, CAUGHT_UP, TRIMMED, FORKED, BEHIND = range(5)
LAST = 2**64 - 1
REQUEST_MAX, ANSWER_MAX = 4096, (16 << 20) + 4096
REP = 0x31
FLIPS, RANDOM = 1500, 300
CROWDS = 8
GROWTH_MAX_KIB = (200 if "asan" in BIN or "tsan" in BIN else 48) << 10  # a window, and an answer that comes
REASONS = ("malformed", "other_version", "other_cluster", "not_member", "not_held", "too_many", "beyond",
           "not_asked_for", "bad_frames", "forks")
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))


def peak_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


class Hostile(unittest.TestCase):
    def setUp(self):
        print(f"\nseed {SEED}")
        self.rng = random.Random(SEED)
        self.cluster = Cluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.node = self.cluster["n1"]
        self.logs = {name: bytes.fromhex(log_of(self.cluster, name).replace("-", "")) for name in self.cluster.nodes}
        for node in self.cluster.nodes.values():
            node.ctl("append", "--ack", "all", "--ack-timeout", "60s", "first", "second")
        wait_equal(self.cluster)
        with open(os.path.join(self.node.data, "member"), "rb") as file:
            self.cluster_id = unpack(file.read(), 16)[0][1]
        self.pids = {name: node.pid("replsvc") for name, node in self.cluster.nodes.items()}
        self.memory_kib = {name: peak_kib(pid) for name, pid in self.pids.items()}

    def message(self, kind, body, version=1, cluster=None, sender="n2"):
        return pack([version, kind, 0, cluster or self.cluster_id, sender, [bytes(16), 0, 0], body])

    def place(self, name, of):
        """Where node `name` stands in the log of `of`: position, LSN, checksum."""
        node = self.cluster[name]
        caller = Caller(self, f"{node.run}/wal.in", f"{node.run}/wal.out")
        _, body = caller.ask(LOGS, {2: 0, 3: 0})
        return next(row[1:4] for row in body[3] if row[0] == self.logs[of])

    def fetch(self, changes=None, of="n1", by="n2"):
        """Of what follows the first place of all."""
        return {FROM: self.logs[by], LOG: self.logs[of], AT: 0, LSN: 0, CHECKSUM: 0, MOST_BYTES: 1 << 20,
                MOST_ENTRIES: LAST, WAIT_MS: 0} | (changes or {})

    def counters(self, name="n1"):
        return self.cluster[name].json("replicas")["counters"]

    def check_counted(self, before, wanted, name="n1"):
        wait_for(lambda: all(self.counters(name)[reason] >= before[reason] + count for reason, count in wanted.items()),
                 f"counts {wanted}", 60)
        after = self.counters(name)
        self.assertEqual({reason: after[reason] - before[reason] for reason in REASONS},
                         {reason: wanted.get(reason, 0) for reason in REASONS})

    def check_unharmed(self, names=("n1", "n2", "n3")):
        for name in names:
            self.assertEqual(self.cluster[name].pid("replsvc"), self.pids[name], self.cluster[name].log_tail())
            self.assertLess(peak_kib(self.pids[name]) - self.memory_kib[name], GROWTH_MAX_KIB, f"{name} has grown")
        for node in self.cluster.nodes.values():
            done = node.json("append", "--ack", "all", "--ack-timeout", "60s", "still alive")
            self.assertEqual(done["ack"], "all")
        wait_equal(self.cluster)


class Ports(Hostile):
    """What comes in at n1."""

    def ask(self, message):
        """The answer to a fetch: (type, body)."""
        with Wire((self.node.host, self.node.port + 4), REQ) as line:
            line.send(message)
            (_, kind, _, _, _, _, body), _ = unpack(line.receive())
            return kind, body

    def push(self, *messages):
        with Wire((self.node.host, self.node.port + 3), PUSH) as line:
            for message in messages:
                line.send(message)

    def test_fetches_that_are_refused(self):
        other = self.rng.randbytes(16)
        for message, code, counter, said in (
                (self.message(FETCH, self.fetch(), cluster=self.rng.randbytes(8)), BAD_REQUEST, "other_cluster",
                 "a replication message of another cluster"),
                (self.message(FETCH, self.fetch(), version=2), VERSION_MISMATCH, "other_version",
                 "a replication message of another protocol version"),
                (self.message(POSITION, self.fetch()), BAD_REQUEST, "malformed", "a replication message is malformed"),
                (self.message(FETCH, self.fetch({MOST_BYTES: 1 << 40})), BAD_REQUEST, "malformed", "is malformed"),
                (self.message(FETCH, self.fetch({WAIT_MS: LAST})), BAD_REQUEST, "malformed", "is malformed"),
                (self.message(FETCH, self.fetch({LSN: LAST})), BAD_REQUEST, "malformed", ""),
                (self.message(FETCH, self.fetch(), sender="n9"), NOT_MEMBER, "not_member",
                 "a fetch from who is no member of the group"),
                (self.message(FETCH, self.fetch({FROM: other})), NOT_MEMBER, "not_member", '"detail":"n9"'),
                (self.message(FETCH, self.fetch(), sender="n1"), NOT_MEMBER, "not_member", '"detail":"n9"'),
                (self.message(FETCH, self.fetch({LOG: other})), NOT_FOUND, "not_held", "")):
            with self.subTest(code=code, counter=counter):
                before = self.counters()
                kind, body = self.ask(message)
                self.assertEqual((kind, body[1]), (ERROR, code), body)
                self.check_counted(before, {counter: 1})
                self.node.wait_logged(said)
        self.check_unharmed()

    def test_absurd_places_get_no_frames(self):
        """But for the one that is the beginning of the log."""
        end = self.place("n1", "n1")
        numbers = (0, 1, end[0], end[0] + 1, 1 << 32, 1 << 63, LAST - 1, LAST)
        asked = 0
        for position in numbers:
            for lsn in (0, 1, end[1], end[1] + 1, LAST - 1, LAST):
                for changes in ({}, {ANEW: True}, {8: True}, {MOST_BYTES: 0}, {MOST_ENTRIES: 0}):
                    kind, body = self.ask(self.message(FETCH, self.fetch({AT: position, LSN: lsn} | changes)))
                    asked += 1
                    if kind == FETCH_REPLY and body[2] == FRAMES:
                        self.assertEqual(position, 0, (lsn, changes))
                        self.assertLessEqual(len(body[6]), end[0])
        self.assertGreater(asked, 200)
        self.check_unharmed()

    def test_positions_that_are_refused(self):
        end, lsn, checksum = self.place("n1", "n1")
        other = self.rng.randbytes(16)

        def at(lsn, end, changes=None):
            return {1: self.logs["n2"], 2: self.logs["n1"], 3: end, 4: lsn} | (changes or {})
        for message, counter, said in (
                (self.message(POSITION, at(lsn, end), cluster=self.rng.randbytes(8)), "other_cluster", "another cluster"),
                (self.message(POSITION, at(lsn, end), version=2), "other_version", "another protocol version"),
                (self.message(FETCH, at(lsn, end)), "malformed", "is malformed"),
                (self.message(POSITION, at(lsn, end), sender="n9"), "not_member", "a position from who is no member"),
                (self.message(POSITION, at(lsn, end, {1: other})), "not_member", "a position from who is no member"),
                (self.message(POSITION, at(lsn, end, {2: other})), "not_member", "a position from who is no member"),
                (self.message(POSITION, at(lsn + 1, end)), "beyond", "has more of this node's log than there is"),
                (self.message(POSITION, at(lsn, end + 1)), "beyond", "has more of this node's log than there is"),
                (self.message(POSITION, at(lsn, end, {5: checksum ^ 1})), "forks", "ends with another frame than the log"),
                (self.message(POSITION, at(LAST, LAST)), "beyond", "has more of this node's log than there is")):
            with self.subTest(counter=counter):
                before = self.counters()
                self.push(message)
                self.check_counted(before, {counter: 1})
                self.node.wait_logged(said)
        replicas = self.node.json("replicas")
        self.assertLessEqual(max(row["lsn"] for row in replicas["followers"]), replicas["durable_lsn"])
        self.check_unharmed()

    def damaged(self, whole):
        yield from (self.rng.randbytes(self.rng.choice((1, 7, 64, 1000, REQUEST_MAX - 4))) for _ in range(RANDOM))
        yield from (whole[:cut] for cut in range(len(whole)))
        for _ in range(FLIPS):
            at = self.rng.randrange(len(whole))
            yield whole[:at] + bytes([whole[at] ^ 1 << self.rng.randrange(8)]) + whole[at + 1:]

    def test_damaged_fetches(self):
        """Each gets an answer, frames none of them: they are of a log that nobody has."""
        before = self.counters()
        whole = self.message(FETCH, self.fetch({LOG: self.rng.randbytes(16)}))
        with Wire((self.node.host, self.node.port + 4), REQ) as line:
            for message in self.damaged(whole):
                line.send(message)
                kind = unpack(line.receive())[0][1]
                self.assertEqual(kind, ERROR, message)
        after = self.counters()
        self.assertGreater(after["malformed"] - before["malformed"], RANDOM)
        self.assertEqual(after["bad_frames"], before["bad_frames"])
        self.check_unharmed()

    def test_damaged_positions(self):
        """They are of somebody who is no member."""
        before = self.counters()
        sent = list(self.damaged(self.message(POSITION, {1: self.rng.randbytes(16), 2: self.logs["n1"], 3: 0, 4: 0})))
        self.push(*sent)

        def counted():
            after = self.counters()
            return sum(after[reason] - before[reason] for reason in REASONS) >= len(sent)
        wait_for(counted, "all of them to be counted", 60)
        self.check_unharmed()

    def test_who_does_not_read_the_answers_loses_the_connection(self):
        """Before they take up all the places for those who ask. Again and again: where nng meets what comes in while it
        closes a connection, it may close nothing any more, and a minute later replsvc would end."""
        self.node.ctl("append", "--ack", "all", "-", input=b"x" * (256 << 10))
        threads = self.threads()
        for _ in range(CROWDS):
            self.check_crowd()
        wait_for(lambda: self.threads() <= threads + 2, "no thread to wait for a connection to be closed, one each second")
        self.check_unharmed()

    def threads(self):
        return len(os.listdir(f"/proc/{self.pids['n1']}/task"))

    def check_crowd(self):
        before = self.counters()
        ask = self.message(FETCH, self.fetch({MOST_BYTES: 4 << 20}))
        lines = [Wire((self.node.host, self.node.port + 4), REQ, timeout=60) for _ in range(3)]
        for line in lines:
            self.addCleanup(line.close)
            for _ in range(200):
                line.send(ask)
        # Some were answered, to where they wait to be read, or hold the places of their connection.
        wait_for(lambda: self.counters()["too_many"] - before["too_many"] >= 100 * len(lines), "them to be counted")
        self.assertEqual(self.ask(ask)[0], FETCH_REPLY)
        self.node.wait_logged("without reading the answers")
        for line in lines:
            with self.assertRaises(ConnectionError):
                while True:
                    line.take(1 << 16)
            line.close()
        after = self.counters()
        self.assertEqual({reason: after[reason] - before[reason] for reason in REASONS if reason != "too_many"},
                         {reason: 0 for reason in REASONS if reason != "too_many"})

    def test_larger_than_a_message_may_be(self):
        for port, protocol, most in ((3, PUSH, REQUEST_MAX), (4, REQ, 2 * REQUEST_MAX)):
            for size in (most + 1, 64 << 20, 1 << 40, 1 << 63):
                with Wire((self.node.host, self.node.port + port), protocol) as line:
                    with self.assertRaises(ConnectionError):
                        line.socket.sendall(line.frame(size) + bytes(most + 1))
                        line.take(1)
        self.check_unharmed()


class Liar(threading.Thread):
    """Stands in for a member's replsvc, and has a lie for each fetch of one log until there are none left; then it closes each
    connection. lies: [(name, function of the fetch that makes a message, or a size that is only announced)]"""

    def __init__(self, host, port, log, lies):
        super().__init__()
        self.lock = threading.Lock()
        self.log, self.lies = log, list(lies)
        self.told = []  # (who asked, name of the lie)
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(16)
        self.talks = []

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            talk = threading.Thread(target=self.talk, args=(connection,))
            self.talks.append((talk, connection))
            talk.start()

    @staticmethod
    def take(connection, length):
        data = b""
        while len(data) < length:
            part = connection.recv(length - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def talk(self, connection):
        try:
            with connection:
                connection.sendall(greeting(REP))
                self.take(connection, 8)
                while self.answer(connection):
                    pass
        except OSError:
            pass

    def answer(self, connection):
        message = self.take(connection, struct.unpack(">Q", self.take(connection, 8))[0])
        (_, _, _, _, sender, _, fetch), _ = unpack(message[4:])
        if fetch[LOG] != self.log:
            return False
        with self.lock:
            if not self.lies:
                return False
            name, lie = self.lies.pop(0)
            self.told.append((sender, name))
        answer = lie if isinstance(lie, int) else message[:4] + lie(fetch)
        size = answer if isinstance(answer, int) else len(answer)
        connection.sendall(struct.pack(">Q", size) + (b"" if isinstance(answer, int) else answer))
        return True

    def close(self):
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        self.join()
        for talk, connection in self.talks:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                pass
            talk.join()


class Source(Hostile):
    """n3's replsvc is a liar, whom n1 and n2 ask for n3's log."""

    def genuine(self):
        """What n3 has that the others have not: the true answer to their next fetch, one frame at a time."""
        for name in ("n1", "n2"):
            self.cluster[name].stop_service("replsvc")
        position, lsn, checksum = self.place("n3", "n3")
        frames, self.first = [], lsn
        for text in ("third", "fourth"):
            self.cluster["n3"].ctl("append", text)
            with Wire((self.cluster["n3"].host, self.cluster["n3"].port + 4), REQ) as line:
                line.send(self.message(FETCH, self.fetch({AT: position, LSN: lsn, CHECKSUM: checksum}, of="n3")))
                (_, kind, _, _, _, _, body), _ = unpack(line.receive())
            self.assertEqual((kind, body[2]), (FETCH_REPLY, FRAMES))
            frames.append(body[6])
            position, lsn, checksum = self.place("n3", "n3")
        return body, frames

    def reply(self, changes):
        """Of what was true, with something else in it."""
        body = self.true | changes
        return lambda fetch: self.message(FETCH_REPLY, {3: fetch[AT]} | body, sender="n3")

    def lies(self):
        """(name, lie, counters it shows in, what the log says)"""
        reply, rng = self.reply, self.rng
        one, two = self.frames
        asked, bad = "not_asked_for", "bad_frames"
        flipped = bytearray(one)
        flipped[rng.randrange(len(one))] ^= 1 << rng.randrange(8)
        said_other, said_bad = "other frames than it was asked for", "frames that are damaged, or do not continue the log"
        state = {6: b""}
        yield "another log", reply({1: rng.randbytes(16)}), [asked], "sends another log than it was asked for"
        yield "another place", reply({3: 64}), [asked], said_other
        yield "a place near the end of numbers", reply({3: LAST}), [asked], said_other
        yield "a flipped bit", reply({6: bytes(flipped)}), [bad], said_bad
        yield "half a frame", reply({6: one[:len(one) // 2]}), [bad], said_bad
        yield "more than a frame", reply({6: one + b"\0"}), [bad], said_bad
        yield "the frame after the next", reply({6: two}), [bad], said_bad
        yield "the same frame twice", reply({6: one + one}), [bad], said_bad
        yield "no bytes", reply({6: b""}), [bad], said_bad
        yield "another segment", reply({9: 2}), [bad], said_bad
        yield "a large heap of noise", reply({6: rng.randbytes(15 << 20)}), [bad], said_bad
        yield "a large heap of zeros", reply({6: bytes(15 << 20)}), [bad], said_bad
        yield "noise", lambda _: rng.randbytes(1000), ["malformed", "failed"], "a replication message is malformed"
        yield "another cluster", lambda _: self.message(FETCH_REPLY, self.true, cluster=rng.randbytes(8)), \
            ["other_cluster", "failed"], "a replication message of another cluster"
        yield "another version", lambda _: self.message(FETCH_REPLY, self.true, version=2), \
            ["other_version", "failed"], "a replication message of another protocol version"
        yield "a size that is announced", 1 << 40, ["failed"], ""
        yield "one byte too many", lambda _: bytes(ANSWER_MAX + 1), ["failed"], ""
        yield "an unknown state", reply({2: 99}), ["malformed"], "a member answers what cannot be read"
        yield "another message", lambda _: self.message(POSITION, {}), ["malformed"], "a member answers what cannot be read"
        yield "an unknown error", lambda _: self.message(ERROR, {1: 200, 2: "go away"}), ["refused"], "refuses to send a log"
        yield "a fork", reply(state | {2: FORKED, 5: 1}), ["forks"], "on different chains"
        yield "it is behind", reply(state | {2: BEHIND}), [], "less of its own log than its copy here"
        yield "trimmed to the end of numbers", reply(state | {2: TRIMMED, 3: LAST, 4: LAST}), [], ""
        yield "the end, at once, and an absurd one", reply(state | {2: CAUGHT_UP, 7: LAST, 8: LAST}), [], ""

    def test_lies(self):
        self.true, self.frames = self.genuine()
        del self.true[3]
        liar = self.cluster["n3"]
        liar.stop_service("replsvc")
        lies = list(self.lies())
        liar_at_work = Liar(liar.host, liar.port + 4, self.logs["n3"], [lie[:2] for lie in lies])
        self.addCleanup(liar_at_work.close)
        liar_at_work.start()
        for name in ("n1", "n2"):
            self.cluster[name].ctl("svc", "start", "replsvc")
            self.pids[name] = self.cluster[name].pid("replsvc")
            self.memory_kib[name] = peak_kib(self.pids[name])
        wait_for(lambda: len(liar_at_work.told) == len(lies), "all lies to be told", 150, 0.1)
        for name in ("n1", "n2"):
            self.check_what_was_told(name, {told for to, told in liar_at_work.told if to == name}, lies)
        log = log_of(self.cluster, "n3")
        for name in ("n1", "n2"):
            seen = wait_for(lambda name=name: positions(self.cluster, name), f"an answer of {name}")
            self.assertEqual(seen[log], self.first, "nothing was stored")
        liar_at_work.close()
        liar.ctl("svc", "start", "replsvc")
        self.pids["n3"] = liar.pid("replsvc")
        self.check_unharmed()
        for node in self.cluster.nodes.values():
            wait_lines(node, log, ["first", "second", "third", "fourth", "still alive"])

    def check_what_was_told(self, name, told, lies):
        wanted = {}
        for lie, _, counters, said in lies:
            if lie not in told:
                continue
            for counter in counters:
                wanted[counter] = wanted.get(counter, 0) + 1
            wait_for(lambda s=said: self.cluster[name].log_lines(s), f"{lie} to be named by {name}")
        wait_for(lambda: all(self.counters(name)[counter] >= count for counter, count in wanted.items()), f"{wanted} at {name}")
        self.assertEqual({reason: self.counters(name)[reason] for reason in REASONS},
                         {reason: wanted.get(reason, 0) for reason in REASONS})


if __name__ == "__main__":
    unittest.main()
