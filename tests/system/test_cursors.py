"""Cursors on one node, as a user would use them: who may move one where to."""
import json
import random
import threading
import unittest

from cursors import (COMMIT, CURSOR_GET, CURSOR_GET_REPLY, CURSOR_SET, CURSOR_SET_REPLY, DELETE, ERROR, NOBODY, TAKE, UNAVAILABLE,
                     CursorTest)
from shanghai import Node, wait_for


class Cursors(CursorTest):
    """Each test has cursors of its own."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node("query: {view: true, cursor_ttl: 1h}").start()
        cls.log = cls.node.json("status")["log"]
        cls.node.ctl("append", "-", input=b"x\n" * 1000)

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1][-60:]
        self.file = self.session()

    # ---------------------------------------------------------------- owners and epochs

    def test_a_new_cursor_is_before_everything(self):
        held = self.take(self.name)
        self.assertEqual((held["epoch"], held["position"]), (1, []))
        row = self.json("show", self.name)
        self.assertEqual((row["name"], row["epoch"], row["owner"], row["expired"], row["ttl_ms"]),
                         (self.name, 1, held["owner"], False, 3600 * 1000))
        self.assertEqual(row["expires_ms"], row["written"]["time_ms"] + 3600 * 1000)
        self.assertEqual(row["written"]["log"], self.log)
        own, = row["logs"]
        self.assertEqual((own["log"], own["lsn"], own["behind"]), (self.log, 0, own["durable_lsn"]))
        self.assertEqual(row["behind"], own["behind"])
        self.assertGreaterEqual(own["behind"], 1000)

    def test_its_owner_moves_it_ahead_only(self):
        held = self.take(self.name)
        done = self.commit(self.name, held, self.place(10))
        self.assertEqual((done["epoch"], done["position"]), (1, [{"log": self.log, "lsn": 10}]))
        self.commit(self.name, held, self.place(10))
        self.commit(self.name, held, self.place(20), self.place(5, NOBODY))
        for back in ([self.place(19), self.place(5, NOBODY)], [self.place(21)], ["--start"],
                     [self.place(30), self.place(4, NOBODY)]):
            text = self.refused(1, "conflict", "set", self.name, "--epoch", "1", "--owner", held["owner"], *back)
            self.assertIn("goes back", text)
        self.assertEqual(self.at(self.name), {self.log: 20, NOBODY: 5})
        show = {log["log"]: log for log in self.json("show", self.name)["logs"]}
        self.assertEqual((show[NOBODY]["durable_lsn"], show[NOBODY]["behind"]), (None, None))
        self.commit(self.name, held)
        self.assertEqual(self.at(self.name), {self.log: 20, NOBODY: 5}, "it only lasts longer")

    def test_who_takes_it_goes_on_where_it_was_and_the_other_is_refused(self):
        first = self.take(self.name)
        self.commit(self.name, first, self.place(10))
        second = self.take(self.name)
        self.assertEqual((second["epoch"], second["position"]), (2, [{"log": self.log, "lsn": 10}]))
        self.assertNotEqual(second["owner"], first["owner"])
        text = self.refused(1, "conflict", "set", self.name, "--epoch", "1", "--owner", first["owner"], self.place(11))
        self.assertIn(f"in epoch 2, owned by {second['owner']}", text)
        self.refused(1, "conflict", "set", self.name, "--epoch", "2", "--owner", first["owner"], self.place(11))
        self.commit(self.name, second, self.place(11))
        self.assertEqual(self.at(self.name), {self.log: 11})

    def test_an_epoch_that_is_not_known_yet_is_waited_for(self):
        held = self.take(self.name)
        caller = self.caller()
        kind, body = caller.ask(CURSOR_SET, {1: self.name, 2: COMMIT, 3: held["epoch"] + 1, 4: bytes(15) + b"x"})
        self.assertEqual((kind, body[1]), (ERROR, UNAVAILABLE), body)
        self.assertIn("not known on this node yet", body[2])

    def test_only_a_free_one_is_taken_without_force(self):
        held = self.take(self.name, "--if-free")
        self.refused(1, "conflict", "take", self.name, "--if-free")
        self.refused(1, "conflict", "set", self.name, self.place(5))
        self.assertEqual(self.json("show", self.name)["owner"], held["owner"])
        moved = self.json("set", self.name, "--force", self.place(100))
        self.assertEqual(moved["epoch"], 2)
        back = self.json("set", self.name, "--force", self.place(50))
        self.assertEqual((back["epoch"], self.at(self.name)), (3, {self.log: 50}))
        self.json("set", self.name, "--force", "--start")
        self.assertEqual(self.at(self.name), {})
        fresh = f"{self.name}2"
        self.assertEqual(self.json("set", fresh, self.place(7))["epoch"], 1)
        self.assertEqual(self.at(fresh), {self.log: 7})

    def test_a_request_that_comes_twice_takes_once(self):
        caller, owner = self.caller(), random.randbytes(16)
        first = caller.ask(CURSOR_SET, {1: self.name, 2: TAKE, 4: owner, 5: [], 8: 60000})
        again = caller.ask(CURSOR_SET, {1: self.name, 2: TAKE, 4: owner, 5: [], 8: 60000})
        self.assertEqual((first[0], again[0], first[1][1], again[1][1]), (CURSOR_SET_REPLY, CURSOR_SET_REPLY, 1, 1))
        deleter = random.randbytes(16)
        for _ in range(2):
            self.assertEqual(caller.ask(CURSOR_SET, {1: self.name, 2: DELETE, 4: deleter, 8: 60000})[0], CURSOR_SET_REPLY)
        self.refused(1, "not_found", "delete", self.name)

    def test_of_many_that_take_it_at_once_each_has_an_epoch_of_its_own(self):
        taken = []

        def take():
            taken.append(self.node.json("cursor", "take", self.name))
        takers = [threading.Thread(target=take) for _ in range(16)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        self.assertEqual(sorted(held["epoch"] for held in taken), list(range(1, 17)))
        last = max(taken, key=lambda held: held["epoch"])
        wait_for(lambda: self.json("show", self.name)["epoch"] == 16, "the last one")
        for held in taken:
            if held is not last:
                self.refused(1, "conflict", "set", self.name, "--epoch", str(held["epoch"]), "--owner", held["owner"])
        self.commit(self.name, last, self.place(1))

    def test_one_of_many_has_a_free_one(self):
        done = []

        def take():
            done.append(self.node.ctl("cursor", "take", "--if-free", self.name, check=False).returncode)
        takers = [threading.Thread(target=take) for _ in range(12)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        self.assertEqual(sorted(done), [0] + [1] * 11)

    def test_a_deleted_cursor_is_gone_and_may_come_again(self):
        held = self.take(self.name)
        self.commit(self.name, held, self.place(10))
        self.refused(1, "conflict", "delete", "--epoch", "7", self.name)
        self.node.ctl("cursor", "delete", "--session", self.file, "--epoch", "1", self.name)
        self.refused(1, "not_found", "show", self.name)
        self.refused(1, "not_found", "delete", self.name)
        self.refused(1, "not_found", "set", self.name, "--epoch", "1", "--owner", held["owner"], self.place(11))
        again = self.take(self.name, "--if-free")
        self.assertEqual((again["epoch"], again["position"]), (3, []), "nobody has an epoch that somebody had before")

    # ---------------------------------------------------------------- lists

    def test_lists_by_prefix_and_behind_a_name(self):
        for name in ("a", "b1", "b2", "b3", "c"):
            self.take(f"{self.name[:40]}/{name}")
        self.node.ctl("cursor", "delete", "--session", self.file, f"{self.name[:40]}/b2")
        prefix = f"{self.name[:40]}/"

        def names(*args):
            return [row["name"][len(prefix):] for row in self.json("list", *args)]
        self.assertEqual(names(prefix), ["a", "b1", "b3", "c"])
        self.assertEqual(names(prefix + "b"), ["b1", "b3"])
        self.assertEqual(names("--behind", prefix + "b1", prefix), ["b3", "c"])
        self.assertEqual(names("--behind", prefix + "a", prefix + "b"), ["b1", "b3"])
        self.assertEqual(names("--count", "2", prefix), ["a", "b1"])
        self.assertEqual(names(prefix + "x"), [])
        self.assertIn(prefix + "b1", [row["name"] for row in self.json("list")])
        text = self.node.ctl("cursor", "list", prefix).stdout.decode()
        self.assertEqual(len(text.splitlines()), 5, text)

    def test_a_list_of_more_than_one_answer_misses_none(self):
        caller, prefix = self.caller(), f"{self.name[:40]}/"
        for i in range(9):
            caller.ask(CURSOR_SET, {1: f"{prefix}{i}", 2: TAKE, 4: random.randbytes(16), 8: 60000})
        wait_for(lambda: len(self.json("list", prefix)) == 9, "all of them")
        found, behind = [], ""
        while True:
            kind, body = caller.ask(CURSOR_GET, {2: prefix, 3: behind, 4: 2})
            self.assertEqual(kind, CURSOR_GET_REPLY)
            found += [row[0] for row in body[1]]
            if not body.get(2):
                break
            self.assertEqual(len(body[1]), 2)
            behind = body[3]
        self.assertEqual(found, [f"{prefix}{i}" for i in range(9)])

    # ---------------------------------------------------------------- what is no cursor

    def test_names_have_1_to_64_bytes(self):
        longest = self.name.ljust(64, "n")
        self.take(longest)
        self.assertEqual(self.json("show", longest)["name"], longest)
        for verb in ("take", "show", "set", "delete"):
            self.refused(3, "too_large", verb, longest + "n")
            for name in ("", "a\nb", b"\xff", "\x7f"):
                self.refused(3, "bad_request", verb, name)
        self.refused(3, "too_large", "list", longest + "n")
        self.refused(3, "too_large", "list", "--behind", longest + "n")
        self.refused(1, "not_found", "show", "never")
        self.refused(1, "not_found", "delete", "never")
        self.refused(1, "not_found", "set", "never", "--epoch", "1", "--owner", NOBODY, self.place(1))

    def test_wrong_usage_is_exit_2(self):
        for args in (("take",), ("show",), ("set", self.name, "x"), ("set", self.name, self.log), ("set", self.name, "x:1"),
                     ("set", self.name, self.log + ":-1"), ("set", self.name, self.log + ":1\n"),
                     ("set", self.name, "--start", self.place(1)), ("set", self.name, "--epoch", "1", self.place(1)),
                     ("set", self.name, "--owner", NOBODY), ("set", self.name, "--epoch", "1", "--owner", "x"),
                     ("set", self.name, "--epoch", "1", "--owner", NOBODY, "--force"), ("take", "--ttl", "0s", self.name),
                     ("take", "--ttl", "366d", self.name)):
            self.assertEqual(self.node.ctl("cursor", *args, check=False).returncode, 2, args)
        self.refused(1, "not_found", "show", self.name)

    def test_messages_that_are_none_are_refused(self):
        owner = bytes(15) + b"x"
        good = {1: self.name, 2: TAKE, 4: owner}
        log = bytes(range(16))
        bad = ({}, {1: self.name}, {**good, 1: ""}, {**good, 1: "n" * 65}, {**good, 1: "a\0"}, {**good, 2: 4},
               {**good, 4: bytes(16)}, {**good, 4: bytes(15)}, {**good, 2: COMMIT}, {**good, 5: 1}, {**good, 5: [1]},
               {**good, 5: [[log]]}, {**good, 5: [[log, 1, 1]]}, {**good, 5: [[bytes(15), 1]]}, {**good, 5: [["x" * 16, 1]]},
               {**good, 5: [[log, "1"]]}, {**good, 5: [[log, 1], [log, 2]]},
               {**good, 5: [[i.to_bytes(16, "big"), 1] for i in range(1, 258)]}, {**good, 6: 31536000001}, {**good, 7: 1},
               {**good, 7: [[log]]}, {**good, 8: 60001})
        gets = ({1: "n" * 65}, {2: "n" * 65}, {3: "n" * 65}, {4: 1001}, {5: 1}, {6: 60001}, {1: b"\xff"})
        caller = self.caller()
        for message, bodies in ((CURSOR_SET, bad), (CURSOR_GET, gets)):
            for i, body in enumerate(bodies):
                self.assertEqual(caller.ask(message, body)[0], ERROR, (message, i))
        self.refused(1, "not_found", "show", self.name)
        most = [[i.to_bytes(16, "big"), 1] for i in range(256, 0, -1)]
        self.assertEqual(caller.ask(CURSOR_SET, {**good, 5: most, 6: 31536000000})[0], CURSOR_SET_REPLY)
        wait_for(lambda: self.name in [row["name"] for row in self.json("list")], "it to be there")
        self.assertEqual(len(self.at(self.name)), 256)

    def test_a_set_waits_for_its_token_or_says_how_far_the_node_is(self):
        with open(self.file, "w", encoding="ascii") as file:
            file.write(f"{NOBODY} 5\n")
        for args in (("take", self.name), ("show", self.name), ("list",), ("delete", self.name)):
            for timeout in ("1s", "5s", "30s"):  # the client may have no time left for what the node says
                said = self.refused(3, "timeout", *args, timeout=timeout)
                if "wanted" in said:
                    break
            self.assertIn(f"log {NOBODY} is wanted up to LSN 5", said)

    def test_a_cursor_shows_up_in_reads_of_the_log(self):
        self.take(self.name)
        rows = self.node.ctl("--format", "json", "read", "--from", "1001", "--count", "1000").stdout.splitlines()
        self.assertIn(("cursor", self.name), [(row["kind"], row.get("key")) for row in map(json.loads, rows)])

    # ---------------------------------------------------------------- how long

    def test_one_that_has_expired_says_so_and_its_owner_may_have_it_again(self):
        held = self.take(self.name, "--ttl", "1s")
        self.commit(self.name, held, self.place(5))
        wait_for(lambda: self.json("show", self.name)["expired"], "its end")
        self.assertEqual(self.at(self.name), {self.log: 5}, "it still says where it was")
        self.commit(self.name, held)
        wait_for(lambda: self.json("show", self.name)["expired"], "its end")
        other = self.take(self.name, "--if-free", "--ttl", "1h")
        self.assertEqual((other["epoch"], other["position"]), (2, [{"log": self.log, "lsn": 5}]))
        row = self.json("show", self.name)
        self.assertEqual((row["expired"], row["ttl_ms"]), (False, 3600 * 1000))


class WithoutView(unittest.TestCase):
    def test_a_node_without_a_view_says_so(self):
        with Node("query: {view: false}") as node:
            node.start()
            for args in (("list",), ("show", "c"), ("take", "c"), ("delete", "c")):
                done = node.ctl("--format", "json", "cursor", *args, check=False)
                self.assertEqual(json.loads(done.stderr)["error"], "forbidden")


if __name__ == "__main__":
    unittest.main()
