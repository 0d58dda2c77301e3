"""Many keys in one request: threads of their own look them up, while others are answered, and while querysvc ends."""
import json
import os
import random
import shutil
import threading
import unittest

from caller import Caller
from cluster import SUPERVISOR
from shanghai import Node, wait_for

ERROR, KV_GET, KV_GET_REPLY = 3, 128, 129
BAD_REQUEST, TOO_LARGE = 1, 2
KEYS = 3000
MOST_UNANSWERED = 200  # a session may have 256


class Many(unittest.TestCase):
    def setUp(self):
        self.node = Node(SUPERVISOR)
        self.addCleanup(self.node.close)
        self.node.start()
        lines = "".join(f"put {self.key(i)} {self.value(i)}\n" for i in range(KEYS))
        self.session = f"{self.node.dir}/session"
        self.node.ctl("kv", "txn", "--session", self.session, input=lines.encode())
        self.node.ctl("kv", "get", "--session", self.session, self.key(0))

    @staticmethod
    def key(i):
        return f"key:{i}"

    @staticmethod
    def value(i):
        return f"value of {i} {'x' * (i % 200)}"

    def caller(self):
        return Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")

    def check_rows(self, wanted, rows):
        """Each is nil, or has its key and value first."""
        self.assertEqual([row and (row[0], row[1]) for row in rows],
                         [None if i >= KEYS else (self.key(i).encode(), self.value(i).encode()) for i in wanted])

    def test_each_of_many_requests_has_its_answer(self):
        rng = random.Random(7)
        caller, asked = self.caller(), {}

        def take():
            number, kind, body = caller.take()
            self.assertEqual(kind, KV_GET_REPLY)
            self.check_rows(asked.pop(number), body[1])
        for count in rng.choices((1, 2, 16, 17, 40, 41, 200, 1000), k=700):
            wanted = [rng.randrange(KEYS + 20) for _ in range(count)]
            asked[caller.send(KV_GET, {1: [self.key(i).encode() for i in wanted]})] = wanted
            while len(asked) >= MOST_UNANSWERED:
                take()
        while asked:
            take()

    def test_one_bad_key_among_many_is_named(self):
        caller = self.caller()
        good = [self.key(i).encode() for i in range(100)]
        for keys, expected in ((good + [b""], BAD_REQUEST), (good + [bytes(4097)], TOO_LARGE), (good + [7], BAD_REQUEST)):
            kind, body = caller.ask(KV_GET, {1: keys})
            self.assertEqual((kind, body[1]), (ERROR, expected))
        kind, body = caller.ask(KV_GET, {1: good})
        self.assertEqual(kind, KV_GET_REPLY)
        self.check_rows(range(100), body[1])

    def test_who_wrote_reads_it_among_many(self):
        for i in range(100):
            self.node.ctl("kv", "put", "--session", self.session, "mine", str(i))
            rows = self.node.json("kv", "get", "--session", self.session, "mine", *map(self.key, range(60)))
            self.assertEqual((rows[0]["value"], len(rows)), (str(i), 61))

    def read_on(self, over, failures):
        rng = random.Random(threading.get_ident())
        session = shutil.copy(self.session, f"{self.session}.{threading.get_ident()}")
        while not over.is_set():
            wanted = rng.sample(range(KEYS), 200)
            done = self.node.ctl("--format", "json", "kv", "get", "--session", session, *map(self.key, wanted), check=False)
            if done.returncode != 0 or [row["value"] for row in json.loads(done.stdout)] != [self.value(i) for i in wanted]:
                failures.append((done.returncode, done.stderr, done.stdout[:200]))

    def test_querysvc_may_end_meanwhile(self):
        over, failures = threading.Event(), []
        readers = [threading.Thread(target=self.read_on, args=(over, failures)) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for _ in range(8):
                self.node.kill("querysvc")
                wait_for(lambda: self.node.try_json("kv", "get", *map(self.key, range(100))), "querysvc to be back")
        finally:
            over.set()
            for reader in readers:
                reader.join()
        self.assertEqual(failures, [])

    def test_a_client_that_goes_away_leaves_the_others_served(self):
        for _ in range(3):
            gone = self.caller()
            for _ in range(200):
                gone.send(KV_GET, {1: [self.key(i).encode() for i in range(1000)]})
            gone.push.close()
            gone.req.close()
        rows = self.node.json("kv", "get", *map(self.key, range(100)))  # as often as the node is overloaded
        self.assertEqual([row["value"] for row in rows], [self.value(i) for i in range(100)])

    def test_large_values_are_looked_up_one_by_one(self):
        large = [os.urandom(200 << 10) for _ in range(40)]
        for i, value in enumerate(large):
            self.node.ctl("kv", "put", "--session", self.session, f"large:{i}", "-", input=value)
        caller, wanted, rows = self.caller(), [f"large:{i}".encode() for i in range(40)], []
        self.node.ctl("kv", "get", "--session", self.session, "large:39")
        while len(rows) < 40:
            kind, body = caller.ask(KV_GET, {1: wanted[len(rows):]})
            self.assertEqual(kind, KV_GET_REPLY)
            self.assertGreater(len(body[1]), 0)
            rows += body[1]
        self.assertEqual([(row[0], row[1]) for row in rows], list(zip(wanted, large)))

    def test_a_node_stops_with_requests_under_way(self):
        caller = self.caller()
        for _ in range(300):
            caller.send(KV_GET, {1: [self.key(i).encode() for i in range(1000)]})
        self.assertEqual(self.node.stop(), 0)


if __name__ == "__main__":
    unittest.main()
