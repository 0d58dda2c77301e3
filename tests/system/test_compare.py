"""Copies of a log are compared with each other in the background, by the digests of their sealed segments."""
import json
import os
import random
import unittest

from caller import Caller
from cluster import Cluster
from logs import Appender, crc32c, log_of, segments, wait_equal
from shanghai import wait_for
from supervised import pack, unpack
from wire import REQ, Wire

SETTINGS = """wal: {segment_size: 1MiB, disk_reserve: 1MiB, scrub_rate: 0}
member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}
replication: {compare_interval: 1s}"""
DIFFERS = "a sealed segment is not the same here and at another member"
DIGEST_AT = 88 # in an index
ERROR, LOOK, LOOK_REPLY, DIGESTS, DIGESTS_REPLY = 3, 56, 57, 115, 116
WHOLE, NOT_SEALED = 0, 3 # what a look has found
BAD_REQUEST, NOT_FOUND, NOT_MEMBER = 1, 8, 16


class Comparing(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(settings=SETTINGS).start()
        self.addCleanup(self.cluster.close)
        appender = Appender(self.cluster["n1"], 60000, "--ack", "all")
        appender.start()
        appender.summary()
        wait_equal(self.cluster)
        self.log = log_of(self.cluster, "n1")
        self.base, *others = sorted(segments(self.cluster["n1"], self.log))
        self.sealed = len(others)
        self.assertGreaterEqual(self.sealed, 3)
        for name in self.cluster.nodes:
            wait_for(lambda name=name: self.indexes(name) == self.sealed, f"the indexes at {name}")

    def path(self, name, suffix, base=None):
        return os.path.join(self.cluster[name].data, "log", self.log, f"{base or self.base:020}{suffix}")

    def content(self, name, suffix):
        """b"" while there is no such file."""
        try:
            with open(self.path(name, suffix), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def indexes(self, name):
        return sum(entry.endswith(".idx") for entry in os.listdir(os.path.dirname(self.path(name, ""))))

    def counted(self, what):
        """{node: counter}"""
        return {name: node.json("replicas")["counters"][what] for name, node in self.cluster.nodes.items()}

    def wait_rounds(self):
        """Each node has compared n1's log two times more."""
        before = self.counted("compared")

        def are_through():
            now = self.counted("compared")
            return all(now[name] >= before[name] + 2 * self.sealed for name in now)
        wait_for(are_through, "comparisons", 60, 0.2)

    def alarms(self, name):
        lines = self.cluster[name].ctl("--format", "json", "events").stdout.splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == "alarm"]

    def assert_silence(self):
        self.wait_rounds() # so that what was asked for before is through
        before = self.counted("differences")
        self.wait_rounds()
        self.assertEqual(self.counted("differences"), before)

    def lie(self, name):
        """Another digest in an index, with the right checksum. Returns what it was."""
        good = self.content(name, ".idx")
        bad = bytearray(good)
        bad[DIGEST_AT] ^= 1
        salt = int.from_bytes(self.content(name, ".seg")[24:28], "little")
        self.assertEqual(crc32c(salt, good[:-4]), int.from_bytes(good[-4:], "little"))
        bad[-4:] = crc32c(salt, bad[:-4]).to_bytes(4, "little")
        aside = os.path.join(self.cluster[name].dir, "index")
        with open(aside, "wb") as file:
            file.write(bad)
        os.replace(aside, self.path(name, ".idx"))
        return good

    def wait_line(self, name, *texts):
        wait_for(lambda: any(all(text in line for text in texts) for line in self.cluster[name].log_lines(texts[0])),
                 f"{texts} at {name}", 60, 0.2)

    def test_equal_copies_are_silent(self):
        self.wait_rounds()
        self.assertEqual(set(self.counted("differences").values()), {0})
        for node in self.cluster.nodes.values():
            self.assertEqual(node.log_lines(DIFFERS), [])
            self.assertEqual(self.alarms(node.name), [])

    def test_an_index_that_lies_is_found_and_made_again(self):
        for name in ("n2", "n1"): # of a copy, and of the origin
            good = self.lie(name)
            self.wait_line(name, DIFFERS, self.log, f"segment {self.base}:", f"at {name}")
            wait_for(lambda name=name: self.alarms(name), f"an alarm at {name}")
            text = f"log {self.log}, segment {self.base} is not the same there and at {name}"
            self.assertEqual({alarm["text"] for alarm in self.alarms(name)}, {text})
            self.assertLessEqual({alarm["id"] for alarm in self.alarms(name)}, set(self.cluster.nodes) - {name})
            self.wait_line(name, "its index was wrong: it is made again")
            wait_for(lambda name=name, good=good: self.content(name, ".idx") == good, f"the index at {name}", 60, 0.2)
            self.assertGreaterEqual(self.counted("differences")[name], 1)
            self.assert_silence()
            self.assertEqual(self.cluster[name].json("log", "info", "--log", self.log)["damages"], [])

    def test_damage_behind_a_difference_is_repaired_from_a_holder(self):
        good, index = self.content("n2", ".seg"), self.content("n2", ".idx")
        with open(self.path("n2", ".seg"), "r+b") as file:
            file.seek(300000)
            file.write(bytes([good[300000] ^ 1]))
        self.wait_rounds()
        self.assertEqual(self.counted("differences")["n2"], 0, "the index tells the digest that the segment had")
        self.lie("n2")
        self.wait_line("n2", DIFFERS)
        self.wait_line("n2", "that segment is damaged here")
        self.wait_line("n2", "whole again")
        wait_for(lambda: self.content("n2", ".seg") == good, "the segment's bytes", 60, 0.2)
        wait_for(lambda: self.content("n2", ".idx") == index, "the index", 60, 0.2)
        self.assert_silence()

    def test_a_valid_segment_that_is_not_the_origins_is_fetched_from_there(self):
        good, index = self.content("n2", ".seg"), self.content("n2", ".idx")
        at = good.index(b"n1-00000000", 300000) # in a payload
        with open(self.path("n2", ".seg"), "r+b") as file: # the generator of CRC-32C: no checksum sees it
            file.seek(at)
            file.write(bytes(byte ^ flip for byte, flip in zip(good[at:at + 5], b"\xf1\x76\xec\x05\x01")))
        self.lie("n2") # so that it is looked at, and the index made again of what is there
        self.wait_line("n2", "its index was wrong: it is made again")
        self.wait_line("n2", "not what the log's origin has")
        self.wait_line("n2", "whole again")
        wait_for(lambda: self.content("n2", ".seg") == good, "the segment's bytes", 60, 0.2)
        wait_for(lambda: self.content("n2", ".idx") == index, "the index", 60, 0.2)
        self.assert_silence()
        self.assertEqual(self.cluster["n2"].json("log", "info", "--log", self.log)["damages"], [])
        self.assertEqual(self.content("n1", ".seg"), good)
        self.assertEqual(self.content("n3", ".seg"), good)

    def test_a_look_at_a_segment_by_hand(self):
        def ask(link, body):
            run = self.cluster["n2"].run
            return Caller(self, f"{run}/{link}.in", f"{run}/{link}.out").ask(LOOK, body)

        log = bytes.fromhex(self.log.replace("-", ""))
        own = bytes.fromhex(log_of(self.cluster, "n2").replace("-", ""))
        newest = max(segments(self.cluster["n2"], self.log))
        for base, found in ((self.base, WHOLE), (self.base + 1, NOT_SEALED), (newest, NOT_SEALED)):
            self.assertEqual(ask("wal", {1: log, 2: base}), (LOOK_REPLY, {1: log, 2: base, 3: found}))
        for link, code, body in (("wal", NOT_FOUND, {1: bytes(15) + b"\1", 2: 1}), ("wal", BAD_REQUEST, {1: log}),
                                 ("wal", BAD_REQUEST, {1: own, 2: 1, 3: True}), # which has no other origin
                                 ("query", BAD_REQUEST, {1: log, 2: self.base})): # not for clients
            kind, answer = ask(link, body)
            self.assertEqual((kind, answer[1]), (ERROR, code), answer)

    def ask(self, body, sender="n2"):
        node = self.cluster["n1"]
        wire = Wire(("127.0.0.1", node.port + 4), REQ)
        self.addCleanup(wire.close)
        wire.send(pack([1, DIGESTS, 7, self.cluster_id(), sender, [random.randbytes(16), 0, 0], body]))
        (_, kind, *_, answer), _ = unpack(wire.receive())
        return kind, answer

    def cluster_id(self):
        """As n1 says it in what it answers."""
        wire = Wire(("127.0.0.1", self.cluster["n1"].port + 4), REQ)
        self.addCleanup(wire.close)
        wire.send(pack([1, DIGESTS, 7, None, "", [random.randbytes(16), 0, 0], {}]))
        (_, kind, _, cluster, *_), _ = unpack(wire.receive())
        self.assertEqual(kind, ERROR)
        return cluster

    def test_who_may_ask_for_digests_and_what_they_are_told(self):
        me, log = bytes.fromhex(log_of(self.cluster, "n2").replace("-", "")), bytes.fromhex(self.log.replace("-", ""))
        kind, answer = self.ask({1: me, 2: log, 3: 0, 4: 2})
        self.assertEqual((kind, answer[1]), (DIGESTS_REPLY, log))
        bases = sorted(segments(self.cluster["n1"], self.log))
        self.assertEqual([row[0] for row in answer[2]], bases[:2])
        self.assertEqual(answer[2][0], [self.base, len(self.content("n1", ".seg")),
                                        self.content("n1", ".idx")[DIGEST_AT:DIGEST_AT + 16]])
        self.assertEqual(answer[3], bases[1])
        kind, answer = self.ask({1: me, 2: log, 3: bases[-3], 4: 64})
        self.assertEqual((kind, [row[0] for row in answer[2]], answer.get(3, 0)), (DIGESTS_REPLY, [bases[-2]], 0))
        for code, body, sender in ((BAD_REQUEST, {1: me, 2: log, 3: 0, 4: 65}, "n2"),
                                   (BAD_REQUEST, {1: me, 2: log, 3: 0, 4: 0}, "n2"),
                                   (BAD_REQUEST, {1: me, 2: log, 3: "x", 4: 1}, "n2"),
                                   (BAD_REQUEST, {1: me, 2: log}, "n2"),
                                   (NOT_FOUND, {1: me, 2: bytes(15) + b"\1", 3: 0, 4: 1}, "n2"),
                                   (NOT_MEMBER, {1: me, 2: log, 3: 0, 4: 1}, "n3"),
                                   (NOT_MEMBER, {1: me, 2: log, 3: 0, 4: 1}, "somebody")):
            kind, answer = self.ask(body, sender)
            self.assertEqual((kind, answer[1]), (ERROR, code), (body, sender, answer))


if __name__ == "__main__":
    unittest.main()
