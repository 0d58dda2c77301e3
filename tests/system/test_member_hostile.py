"""Strangers at the port where members talk, in a live cluster of three: each is named, counted and ignored, the view of
all three stays what it was, membersvc lives on and doesn't grow."""
import os
import random
import time
import unittest

from caller import Caller
from cluster import PATIENT_TIMES, Cluster
from shanghai import BIN, wait_for
from supervised import pack, unpack
from wire import PUSH, Wire

HEARTBEAT, GOSSIP, SYNC, REFUSED, NODES = 81, 84, 85, 88, 96
ID, GENERATION, STATUS, LOG, INCARNATION, BOOT = 1, 2, 3, 4, 6, 7  # keys of a record
JOINING = 0
CONFLICT = 6  # an error code
MEMBER_HEAD = 16  # bytes in front of the body of data/member
MESSAGE_MAX = 512 << 10
HOUR_MS = 3600 * 1000
REASONS = ("malformed", "other_version", "other_cluster", "not_member", "other_identity", "stale", "clock_drift",
           "unknown_member", "refusals")
FLIPS, RANDOM, STRANGERS = 4000, 500, 20000
GROWTH_MAX_KIB = (200 if "asan" in BIN or "tsan" in BIN else 8) << 10
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


class Hostile(unittest.TestCase):
    def setUp(self):
        print(f"\nseed {SEED}")
        self.rng = random.Random(SEED)
        self.cluster = Cluster(3, PATIENT_TIMES)  # who is suspect for a moment has another view
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.node = self.cluster["n1"]
        with open(os.path.join(self.node.data, "member"), "rb") as file:
            self.cluster_id = unpack(file.read(), MEMBER_HEAD)[0][1]
        caller = Caller(self, f"{self.node.run}/member.in", f"{self.node.run}/member.out")
        _, body = caller.ask(NODES, {})
        self.records = {info[1][ID]: info[1] for info in body[4]}
        self.pids = {name: node.pid("membersvc") for name, node in self.cluster.nodes.items()}
        self.memory_kib = anonymous_kib(self.pids["n1"])
        self.views = self.all_views()
        self.line = None
        self.addCleanup(self.hang_up)

    def hang_up(self):
        if self.line is not None:
            self.line.close()
            self.line = None

    def say(self, message):
        """To n1's port for members; by a new connection when the last one has ended."""
        if self.line is None:
            self.line = Wire((self.node.host, self.node.port + 2), PUSH)
        try:
            self.line.send(message)
        except ConnectionError:
            self.hang_up()

    def message(self, body, kind=HEARTBEAT, version=1, cluster=None, sender="n2", boot=None):
        return pack([version, kind, 0, cluster or self.cluster_id, sender,
                     [boot or self.records["n2"][BOOT], 0, 0], body])

    def speech(self, changes=None, name="n2", ahead_ms=0):
        """What a message of a member says of its sender: its record, with some fields changed, and the time."""
        return {1: self.records[name] | (changes or {}), 2: time.time_ns() // 1000000 + ahead_ms}

    def counters(self, name="n1"):
        return self.cluster[name].json("nodes")["counters"]

    def wait_counted(self, counter, before, times=1, name="n1"):
        wait_for(lambda: self.counters(name)[counter] >= before[counter] + times, f"{times} more of {counter}", 60)

    def all_views(self):
        return {name: self.cluster.view(name) for name in self.cluster.nodes}

    def check_unharmed(self):
        self.cluster.wait_healthy()
        self.assertEqual(self.all_views(), self.views)
        self.assertEqual({name: node.pid("membersvc") for name, node in self.cluster.nodes.items()}, self.pids)
        self.assertLess(anonymous_kib(self.pids["n1"]) - self.memory_kib, GROWTH_MAX_KIB)
        self.assertEqual(self.node.json("nodes")["state"], "member")

    def check_refused(self, message, counter, said):
        """Counted once, under one name only, and told in the log."""
        before = self.counters()
        self.say(message)
        self.wait_counted(counter, before)
        after = self.counters()
        self.assertEqual({reason: after[reason] - before[reason] for reason in REASONS},
                         {reason: int(reason == counter) for reason in REASONS}, counter)
        wait_for(lambda: self.node.log_lines(said), f"'{said}' in the log")

    def test_each_stranger_is_named_and_counted(self):
        other = self.rng.randbytes(16)
        named = {key: value for key, value in self.records["n2"].items() if key not in (LOG, BOOT)}
        of_nobody = {3: [named | {ID: "n8", GENERATION: 1, STATUS: JOINING}]}
        go_away = {1: CONFLICT, 2: "go away"}
        for message, counter, said in (
                (self.message(self.speech(), cluster=self.rng.randbytes(8)), "other_cluster",
                 "message of another cluster"),
                (self.message(self.speech(), version=2), "other_version", "message of another protocol version"),
                (self.message(self.speech({ID: "n9", LOG: other}), sender="n9"), "not_member",
                 "message of a node that isn't a member"),
                (self.message(self.speech({LOG: other})), "other_identity",
                 "a node with the id of a member has another identity"),
                (self.message(self.speech(name="n1"), sender="n1"), "other_identity",
                 "another node speaks with the id of this one"),
                (self.message(self.speech({INCARNATION: 0, BOOT: other})), "malformed",
                 '"message is malformed: ignored","member":"n2"'),  # bound, and never started
                (self.message(self.speech(), sender="n3"), "malformed",
                 '"message is malformed: ignored","member":"n3"'),
                (self.message(self.speech(), SYNC, sender="n9"), "malformed",
                 '"message is malformed: ignored","member":"n9"'),
                (self.message(self.speech() | of_nobody, GOSSIP), "unknown_member",
                 "names a node that was never joined"),
                (self.message(go_away | {3: other}, REFUSED, sender="n7"), "malformed",
                 '"message is malformed: ignored","member":"n7"'),
                (self.message(go_away | {3: self.records["n1"][BOOT]}, REFUSED), "refusals", "go away")):
            with self.subTest(counter=counter, said=said):
                self.check_refused(message, counter, said)
        self.check_unharmed()

    def test_who_is_refused_is_told_at_its_own_address(self):
        """What an impostor of another cluster says in n2's name comes to the ears of n2."""
        before = self.counters("n2")
        self.say(self.message(self.speech(), cluster=self.rng.randbytes(8)))
        self.wait_counted("refusals", before, name="n2")
        wait_for(lambda: self.cluster["n2"].log_lines("a member refuses our messages"), "its log")
        self.check_unharmed()

    def test_an_earlier_life_of_a_member(self):
        """What the membersvc said that was killed."""
        self.cluster["n3"].kill("membersvc")
        wait_for(lambda: self.cluster.rows("n1")["n3"]["incarnation"] > self.records["n3"][INCARNATION], "its restart")
        self.cluster.wait_healthy()
        self.cluster.wait_equal()
        self.views = self.all_views()
        self.pids["n3"] = self.cluster["n3"].pid("membersvc")
        self.check_refused(self.message(self.speech(name="n3"), sender="n3"), "stale",
                           "message of an earlier life of a member")
        self.check_unharmed()

    def test_a_node_that_left(self):
        self.node.ctl("node", "join", "n4", "--host", "127.0.0.1", "--port", "7000")
        self.node.ctl("node", "leave", "n4")
        self.cluster.wait_status("n4", "left", seen_by=self.cluster.nodes)
        self.views = self.all_views()
        speech = self.speech({ID: "n4", GENERATION: 2, LOG: self.rng.randbytes(16)})
        self.check_refused(self.message(speech, sender="n4"), "not_member", "message of a node that has left")
        self.check_unharmed()

    def test_a_message_from_the_future(self):
        """It is told, and over with the member's next heartbeat."""
        last = self.cluster.last_event("n1")
        self.check_refused(self.message(self.speech(ahead_ms=HOUR_MS)), "clock_drift", "clock of a member is too far")
        both = [("clock_drift", "n2"), ("clock_good", "n2")]
        wait_for(lambda: self.cluster.events("n1", last) == both, "both events")
        self.check_unharmed()

    def damaged(self):
        """Random bytes, messages cut off anywhere, and with a flipped bit: in what stands around the body when it is a
        member's (its record could become another good one), anywhere when it is a stranger's."""
        whole = self.message(self.speech())
        for _ in range(RANDOM):
            yield self.rng.randbytes(self.rng.choice((1, 7, 64, 1000, 60000)))
        for cut in range(len(whole)):
            yield whole[:cut]
        head = len(whole) - len(pack(self.speech()))
        stranger = self.message(self.speech({ID: "n9"}), sender="n9")
        for _ in range(FLIPS):
            message, end = self.rng.choice(((whole, head), (stranger, len(stranger))))
            at = self.rng.randrange(end)
            yield message[:at] + bytes([message[at] ^ 1 << self.rng.randrange(8)]) + message[at + 1:]
        yield self.rng.randbytes(MESSAGE_MAX)

    def test_damaged_messages(self):
        before, sent = self.counters(), 0
        for message in self.damaged():
            self.say(message)
            sent += 1
        self.wait_counted("received", before, sent)
        self.assertGreater(self.counters()["malformed"] - before["malformed"], RANDOM)
        self.check_unharmed()

    def test_larger_than_a_message_may_be(self):
        for size in (MESSAGE_MAX + 1, 64 << 20, 1 << 40, 1 << 63):
            with Wire((self.node.host, self.node.port + 2), PUSH) as line:
                with self.assertRaises(ConnectionError):
                    line.socket.sendall(line.frame(size) + bytes(MESSAGE_MAX))
                    line.take(1)
        self.check_unharmed()

    def test_a_crowd_of_strangers_fills_neither_memory_nor_log(self):
        before = self.counters()
        for i in range(STRANGERS):
            name = f"x{i}"
            self.say(self.message(self.speech({ID: name, LOG: self.rng.randbytes(16)}), sender=name))
        self.wait_counted("not_member", before, STRANGERS)
        self.assertLess(len(self.node.log_lines("isn't a member")), 100)
        self.check_unharmed()


if __name__ == "__main__":
    unittest.main()
