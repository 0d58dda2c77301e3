"""Consumers of a stream that keep their position in a cursor, and go from node to node."""
import json
import os
import random
import threading
import unittest

from cluster import TIMES, Cluster
from shanghai import wait_for

WRITES = 400 if os.environ.get("SHANGHAI_LONG") else 60
SETTINGS = TIMES + "\nquery: {view: true}"


class CursorStreams(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(settings=SETTINGS).start()
        cls.nodes = list(cls.cluster.nodes.values())

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1][-60:]
        self.file = os.path.join(self.nodes[0].dir, self.name)

    def written(self, node):
        return [f"{node.name} {i}" for i in range(WRITES)]

    def write(self):
        """All three nodes at once; the events that they take, once they have."""
        def write(node):
            for value in self.written(node):
                node.ctl("append", "--stream", self.name, value)
        writers = [threading.Thread(target=write, args=(node,)) for node in self.nodes]
        for writer in writers:
            writer.start()
        return writers

    def take(self, node, *options):
        """A new life: all that it knows is in the cursor."""
        if os.path.exists(self.file):
            os.unlink(self.file)
        return node.json("cursor", "take", "--position", self.file, *options, self.name)

    def read(self, node, count, *options):
        """[(log, LSN, payload)], and the file's position is behind them."""
        out = node.ctl("--format", "json", "read", "--stream", self.name, "--position", self.file, "--count", str(count),
                       *options).stdout
        return [(row["log"], row["lsn"], row["payload"]) for row in map(json.loads, out.splitlines())]

    def commit(self, node, held, *options):
        """Also notes the commit in a session of its own, for who asks what was done last."""
        options = options or ("--session", self.file + ".commits")
        return node.ctl("cursor", "set", "--position", self.file, "--epoch", str(held["epoch"]), "--owner", held["owner"],
                        *options, self.name, check=False).returncode

    def wait_known(self, node, by):
        """Until the other node knows what was committed last on this one."""
        wanted = self.written_last(node)
        wait_for(lambda: (by.try_json("cursor", "show", self.name) or {}).get("written") == wanted, f"{by.name} to know")

    def written_last(self, node):
        return node.json("cursor", "show", "--session", self.file + ".commits", self.name)["written"]

    def wait_events(self, node, count):
        wait_for(lambda: [row["events"] for row in node.json("stream", "list", self.name)] == [count],
                 f"{node.name} to have all events")

    def check_all(self, events):
        """Each event once, those of each log in its order."""
        for node in self.nodes:
            self.assertEqual([value for _, _, value in events if value.startswith(f"{node.name} ")], self.written(node))
        self.assertEqual(len(events), 3 * WRITES)
        for log in {log for log, _, _ in events}:
            lsns = [lsn for of, lsn, _ in events if of == log]
            self.assertEqual(lsns, sorted(set(lsns)))

    def test_with_a_session_what_was_committed_comes_once_on_whatever_node(self):
        rng, session, done, crashes = random.Random(5), ("--session", self.file + ".session"), [], 0
        writers = self.write()
        turn = 0
        while any(writer.is_alive() for writer in writers) or len(done) < 3 * WRITES:
            node = self.nodes[turn % 3]
            turn += 1
            held = self.take(node, *session)
            events = self.read(node, rng.randrange(5, 40), *session)
            if turn % 4 == 3:
                crashes += bool(events)
                continue  # processed, and died before it could commit: they come again
            self.assertEqual(self.commit(node, held, *session), 0)
            done += events
            self.assertLess(turn, 100 * WRITES)
        self.assertGreater(crashes, 0)
        self.check_all(done)
        self.take(self.nodes[turn % 3], *session)
        self.assertEqual(self.read(self.nodes[turn % 3], 10, *session), [])

    def test_nothing_is_skipped_when_the_consumers_node_dies(self):
        n1, n2, n3 = self.nodes
        for writer in self.write():
            writer.join()
        for node in self.nodes:
            self.wait_events(node, 3 * WRITES)
        held = self.take(n1)
        first = self.read(n1, WRITES)
        self.assertEqual(self.commit(n1, held), 0)
        self.wait_known(n1, n2)
        lost = self.read(n1, WRITES // 2)
        n1.kill_all()
        try:
            held = self.take(n2)
            self.assertEqual(held["epoch"], 2)
            rest = self.read(n2, 4 * WRITES)
            self.check_all(first + rest)
            self.assertLessEqual(set(lost), set(rest))
            self.assertEqual(self.commit(n2, held), 0)
        finally:
            n1.start()
        self.wait_known(n2, n3)
        self.take(n3)
        self.assertEqual(self.read(n3, 10), [])

    def test_who_has_lost_it_cannot_commit_what_he_reads_on(self):
        n1, n2, _ = self.nodes
        n1.ctl("append", "--batch", "3", "--stream", self.name, "-", input=b"a\nb\nc\n")
        self.wait_events(n1, 3)
        held = self.take(n1)
        self.assertEqual([value for _, _, value in self.read(n1, 1)], ["a"])
        self.assertEqual(self.commit(n1, held), 0)
        self.wait_known(n1, n2)
        other, file = self.take(n2), self.file
        self.assertEqual([value for _, _, value in self.read(n2, 1)], ["b"])
        self.assertEqual(self.commit(n2, other), 0)
        self.wait_known(n2, n1)
        self.file = file + ".old"
        self.assertEqual([value for _, _, value in self.read(n1, 3)], ["a", "b", "c"])
        self.assertEqual(self.commit(n1, held), 1)
        self.file = file
        self.assertEqual([value for _, _, value in self.read(n2, 3)], ["c"])

    def test_a_file_without_a_position_moves_nothing(self):
        node = self.nodes[0]
        node.ctl("append", "--stream", self.name, "a")
        self.wait_events(node, 1)
        held = self.take(node)
        self.read(node, 1)
        self.assertEqual(self.commit(node, held), 0)
        before = self.written_last(node)
        absent, log = self.file + ".absent", held["owner"]
        for args, code in ((("--position", absent), 1), (("--position", absent, "--force"), 1),
                           (("--position", self.file, "--start"), 2), (("--position", self.file, f"{log}:1"), 2),
                           (("hlc:5",), 2)):
            with self.subTest(args=args):
                options = [arg for arg in args if not arg.endswith((":1", ":5"))]
                places = [arg for arg in args if arg.endswith((":1", ":5"))]
                done = node.ctl("cursor", "set", *options, self.name, *places, check=False)
                self.assertEqual(done.returncode, code, done)
        self.assertEqual(self.written_last(node), before)


if __name__ == "__main__":
    unittest.main()
