"""What cursors hold back from trims, and what becomes of them when something is killed or removed."""
import json
import os
import random
import shutil
import time
import unittest

from cluster import SUPERVISOR
from cursors import CURSOR_SET, CURSOR_SET_REPLY, TAKE, CursorTest
from shanghai import Node, wait_for

SEGMENT = "wal: {segment_size: 1MiB}\nquery: {view: true}"


class Holds(CursorTest):
    """What a cursor holds back."""

    def setUp(self):
        self.node = Node(SEGMENT, SUPERVISOR).start()
        self.addCleanup(self.node.close)
        self.file = self.session()
        self.log = self.node.json("status")["log"]

    def fill(self, segments=3):
        for _ in range(segments):
            self.node.ctl("append", "--batch", "100", "-", input=b"x" * 1000 + b"\n" + (b"y" * 1000 + b"\n") * 1100)
        return self.node.json("status")["durable_lsn"]

    def trim(self):
        """(first LSN left, who holds it back). The node does not wait for its own view for ever."""
        end = self.node.json("status")["durable_lsn"]

        def trimmed():
            done = self.node.ctl("--format", "json", "log", "trim", "--before", str(end), check=False)
            said = json.loads(done.stdout)
            return None if any(by.startswith("reader") for by in said["held_by"]) else said
        said = wait_for(trimmed, "the view to let go", 60)
        return said["first_lsn"], said["held_by"]

    def take_for_a_while(self, name, others):
        """Until its hold was seen beside the others'; longer when it was over before anybody had looked."""
        for seconds in (2, 15, 60):
            self.take(name, "--ttl", f"{seconds}s")
            ends_ms = self.json("show", name)["expires_ms"]
            if wait_for(lambda ends_ms=ends_ms: "seen" if self.holds() == {name: 1, **others}
                        else time.time() * 1000 >= ends_ms and "over", f"the hold of {name}", 90) == "seen":
                return
        self.fail(f"{name} holds nothing")

    def wait_holds(self, want):
        wait_for(lambda: self.holds() == want, f"the holds {want}", 90)

    def test_entries_that_it_has_not_read_are_not_trimmed(self):
        held = self.take("c")
        self.wait_holds({"c": 1})
        end = self.fill()
        first, by = self.trim()
        self.assertEqual((first, by), (1, ["cursor c"]))
        middle = self.node.json("log", "info")["segments"][1]["base_lsn"]
        self.commit("c", held, self.place(middle))
        self.wait_holds({"c": middle + 1})
        first, by = self.trim()
        self.assertEqual((first, by), (middle, ["cursor c"]))
        self.commit("c", held, self.place(end))
        self.wait_holds({"c": end + 1})
        first, by = self.trim()
        self.assertGreater(first, middle)
        self.assertNotIn("cursor c", by)

    def test_it_lets_go_when_it_is_deleted(self):
        self.take("c")
        self.take("d")
        self.wait_holds({"c": 1, "d": 1})
        self.fill()
        self.node.ctl("cursor", "delete", "c")
        self.wait_holds({"d": 1})
        self.assertEqual(self.trim(), (1, ["cursor d"]))
        self.node.ctl("cursor", "delete", "d")
        self.wait_holds({})
        self.assertGreater(self.trim()[0], 1)

    def test_it_lets_go_when_it_expires_also_while_querysvc_is_away(self):
        self.take("long", "--ttl", "300d")
        self.take_for_a_while("short", {"long": 1})
        self.wait_holds({"long": 1})
        self.take_for_a_while("next", {"long": 1})
        self.node.kill_all()
        ends_ms = self.json_after_start("next")["expires_ms"]
        self.wait_holds({"long": 1})
        self.assertGreaterEqual(time.time() * 1000, ends_ms)

    def json_after_start(self, name):
        self.node.start()
        return self.json("show", name)

    def test_it_holds_what_is_left_when_it_begins_late(self):
        self.fill()
        first, _ = self.trim()
        self.assertGreater(first, 1)
        self.take("late")
        wait_for(lambda: self.holds().get("late") == first, "what is left to be held")

    def test_kills_lose_no_commit_and_no_hold(self):
        held, at = self.take("c"), 0
        self.fill(1)
        for service in ("querysvc", "walsvc", "querysvc", "walsvc", None):
            at += 100
            self.commit("c", held, self.place(at))
            if service is not None:
                self.node.kill(service)
            else:
                self.node.kill_all()
                self.node.start()
            self.assertEqual(self.at("c"), {self.log: at}, service)
            self.wait_holds({"c": at + 1})
        self.assertEqual(self.json("show", "c")["owner"], held["owner"])

    def test_what_was_taken_before_querysvc_was_killed_counts(self):
        """The view on disk knows nothing of it yet."""
        for epoch in range(1, 9):
            held = self.take("c")
            self.assertEqual(held["epoch"], epoch)
            self.node.kill("querysvc")
            os.remove(self.file)  # no token makes it wait

    def test_a_view_that_is_made_again_has_the_cursors_and_gives_up_no_hold(self):
        held = self.take("c")
        self.take("gone")
        self.fill()
        middle = self.node.json("log", "info")["segments"][1]["base_lsn"]
        self.commit("c", held, self.place(middle))
        self.wait_holds({"c": middle + 1, "gone": 1})
        self.assertEqual(self.node.stop(), 0)
        shutil.rmtree(os.path.join(self.node.data, "view"))
        self.node.start()
        self.assertEqual(self.at("c"), {self.log: middle})
        self.node.ctl("cursor", "delete", "--session", self.file, "gone")

        def is_let_go():
            holds = self.holds()
            self.assertEqual(holds.get("c", middle + 1), middle + 1)
            return holds == {"c": middle + 1}
        wait_for(is_let_go, "the hold of what is gone to go")
        self.commit("c", held, self.place(middle + 1))
        self.wait_holds({"c": middle + 2})

    def test_256_cursors_hold_and_no_more(self):
        caller = self.caller()
        for i in range(256):
            kind, body = caller.ask(CURSOR_SET, {1: f"c{i:03}", 2: TAKE, 4: random.randbytes(16), 8: 60000})
            self.assertEqual(kind, CURSOR_SET_REPLY, body)
        self.assertIn("256 cursors", self.refused(3, "overloaded", "take", "one more"))
        wait_for(lambda: len(self.holds()) == 256, "256 holds")
        self.assertIn("256 cursors", self.refused(3, "overloaded", "take", "one more"))
        self.take("c000")
        self.node.ctl("cursor", "delete", "--session", self.file, "c001")
        wait_for(lambda: self.node.ctl("cursor", "take", "one more", check=False).returncode == 0, "room for one")
        wait_for(lambda: "one more" in self.holds() and "c001" not in self.holds(), "its hold")


if __name__ == "__main__":
    unittest.main()
