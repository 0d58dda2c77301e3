"""Reads while much is written: the rows of a scan are of one instant, and what a session has read is never unread."""
import os
import threading
import unittest

from caller import Caller
from cluster import TIMES, Cluster
from shanghai import Node, wait_for

KV_GET, KV_GET_REPLY, KV_SCAN, KV_SCAN_REPLY, APPEND, APPEND_REPLY = 128, 129, 130, 131, 16, 17
SETTINGS = "query: {view: true}"
READS = 20000 if os.environ.get("SHANGHAI_LONG") else 4000
MOST_READS = 20 * READS


def caller_of(test, node):
    return Caller(test, f"{node.run}/query.in", f"{node.run}/query.out")


class Writer(threading.Thread):
    """Puts the numbers 1, 2, 3, ... to a key and adds 1 to its counter, each time in one frame, until it is told to stop."""

    def __init__(self, test, node, key):
        super().__init__()
        self.caller, self.key = caller_of(test, node), key
        self.over = threading.Event()
        self.count, self.error = 0, None

    def write(self):
        self.count += 1
        entries = [[1, self.key, b"%d" % self.count], [3, self.key, 1]]
        kind, body = self.caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: entries})
        if kind != APPEND_REPLY:
            self.error = body
            self.over.set()

    def run(self):
        while not self.over.is_set():
            self.write()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self.over.set()
        self.join()
        assert self.error is None, self.error


class Instants(unittest.TestCase):
    @staticmethod
    def has_value(reader):
        kind, body = reader.ask(KV_GET, {1: [b"k"]})
        return kind == KV_GET_REPLY and body[1] != [None]

    def test_the_rows_of_a_scan_are_of_one_instant(self):
        """A frame's value and addition are both there, or neither."""
        with Node(SETTINGS).start() as node, Writer(self, node, b"k") as writer:
            reader = caller_of(self, node)
            wait_for(lambda: reader.ask(KV_SCAN, {1: b"k", 3: 10})[0] == KV_SCAN_REPLY, "the view to be open")
            seen, reads = set(), 0
            while reads < READS or (len(seen) <= READS // 100 and reads < MOST_READS):  # a busy disk lets few writes through
                reads += 1
                kind, body = reader.ask(KV_SCAN, {1: b"k", 3: 10})
                self.assertEqual(kind, KV_SCAN_REPLY)
                for _, value, _, _, _, _, counter in body[1]:
                    self.assertEqual(int(value), counter)
                    seen.add(counter)
            self.assertGreater(len(seen), READS // 100, "much was written meanwhile")
            self.assertGreater(writer.count, 0)

    def test_what_a_session_has_read_is_not_unread_on_another_node(self):
        with Cluster(settings=TIMES + "\n" + SETTINGS).start() as cluster:
            with Writer(self, cluster["n1"], b"k") as writer:
                readers = [caller_of(self, node) for node in cluster.nodes.values()]
                wait_for(lambda: all(map(self.has_value, readers)), "the first value")
                token, highest, i = [], 0, -1
                while i + 1 < READS or (highest <= READS // 100 and i + 1 < MOST_READS):
                    i += 1
                    kind, body = readers[i % len(readers)].ask(KV_GET, {1: [b"k"], 2: token, 3: 30000})
                    self.assertEqual(kind, KV_GET_REPLY, body)
                    value, token = int(body[1][0][1]), body[2]
                    self.assertGreaterEqual(value, highest, f"read {i}, on n{i % len(readers) + 1}")
                    highest = value
                self.assertGreater(highest, READS // 100, "much was written meanwhile")
                self.assertGreater(writer.count, 0)


if __name__ == "__main__":
    unittest.main()
