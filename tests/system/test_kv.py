"""Keys and counters on one node, as a user would, and while querysvc is killed."""
import base64
import json
import os
import random
import re
import shutil
import threading
import unittest

from caller import Caller
from cluster import SUPERVISOR
from shanghai import Node, wait_for

KILLS = 100 if os.environ.get("SHANGHAI_LONG") else 15
ERROR, KV_GET, KV_SCAN, KV_SCAN_REPLY, VIEW_INFO, VIEW_INFO_REPLY = 3, 128, 130, 131, 132, 133
NOBODY = "11111111-2222-4333-8444-555555555555"


def field(row, name):
    """The bytes of a JSON field, however they were written; None: there are none."""
    if name in row:
        return row[name].encode()
    return base64.b64decode(row[f"{name}_base64"]) if f"{name}_base64" in row else None


def scan(node, *args):
    """{key: (value, counter)}, each None without one."""
    rows = node.json("kv", "scan", *args)
    found = {field(row, "key"): (field(row, "value"), row.get("counter")) for row in rows}
    assert list(found) == sorted(found) and len(found) == len(rows), "in order, each once"
    return found


class KvTest(unittest.TestCase):
    def session(self, text=None):
        """A path of its own."""
        self.sessions = getattr(self, "sessions", 0) + 1
        path = os.path.join(self.node.dir, f"{self.id()}.{self.sessions}")
        if text is not None:
            with open(path, "wb") as file:
                file.write(text)
        return path

    def refused(self, code, error, *args, **options):
        """The message."""
        done = self.node.ctl("--format", "json", *args, check=False, **options)
        self.assertEqual(done.returncode, code, done)
        said = json.loads(done.stderr)
        self.assertEqual(said["error"], error, said)
        return said["text"]


class Kv(KvTest):
    """Each test has keys and a session of its own."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node("query: {view: true}").start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def setUp(self):
        self.prefix = f"{self.id().rsplit('.', 1)[1]}/"
        self.file = self.session()

    def key(self, name=""):
        return self.prefix + name

    def write(self, verb, *args, **options):
        return self.node.json("kv", verb, "--session", self.file, *args, **options)

    def get(self, *keys, **options):
        return self.node.ctl("--format", "raw", "kv", "get", "--session", self.file, *keys, **options)

    def txn(self, text, **options):
        return self.node.ctl("kv", "txn", "--session", self.file, input=text, **options)

    def scan(self, *args, prefix=None):
        found = scan(self.node, "--session", self.file, *args, self.prefix if prefix is None else prefix)
        return {key.decode()[len(self.prefix):]: row for key, row in found.items()}

    # ---------------------------------------------------------------- values

    def test_a_value_is_there_until_it_is_deleted(self):
        done = self.write("put", self.key("a"), "one")
        self.assertEqual((done["count"], done["ack"]), (1, "local"))
        self.assertEqual(self.get(self.key("a")).stdout, b"one\n")
        row, = self.node.json("kv", "get", self.key("a"))
        self.assertEqual(row, {"key": self.key("a"), "value": "one",
                               "version": {"log": done["log"], "lsn": done["lsn"], "hlc": done["hlc"]}})
        self.write("put", self.key("a"), "two")
        self.assertEqual(self.get(self.key("a")).stdout, b"two\n")
        self.write("del", self.key("a"), self.key("never"))
        self.assertEqual(self.get(self.key("a"), check=False).returncode, 1)
        self.write("put", self.key("a"), "again")
        self.assertEqual(self.get(self.key("a")).stdout, b"again\n")

    def test_a_key_without_a_value_is_exit_1(self):
        done = self.get(self.key("none"), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"no value", done.stderr)
        self.write("put", self.key("a"), "x")
        done = self.get(self.key("none"), self.key("a"), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, f"{self.key('a')}\tx\n".encode()))
        self.assertIn(b"some of these keys", done.stderr)

    def test_values_are_any_bytes_and_none(self):
        for value in (b"", b"\n", bytes(range(256)), random.randbytes(1 << 20)):
            self.write("put", self.key("raw"), "-", input=value)
            self.assertEqual(self.get(self.key("raw")).stdout, value + b"\n")
            row, = self.node.json("kv", "get", self.key("raw"))
            self.assertEqual(field(row, "value"), value)
        self.write("put", self.key("empty"), "")
        self.assertEqual(self.scan()["empty"], (b"", None))

    def test_keys_are_any_bytes(self):
        key = self.prefix.encode() + bytes(range(1, 256))
        self.write("put", key, "x")
        self.assertEqual(self.get(key).stdout, b"x\n")
        self.assertEqual(scan(self.node, self.prefix), {key: (b"x", None)})
        self.assertNotIn(b"\x1b", self.node.ctl("kv", "scan", self.prefix).stdout, "nothing that moves a terminal")

    def test_a_text_for_a_terminal_shows_a_scan_line_by_line(self):
        self.txn(f"put {self.key('a')} one\nincr {self.key('b')} 7\n".encode())
        self.assertEqual(self.node.ctl("kv", "scan", "--session", self.file, self.prefix).stdout,
                         f"{self.key('a')}\tone\n{self.key('b')}\t7\n".encode())

    # ---------------------------------------------------------------- how long

    def test_a_value_whose_time_is_over_is_gone(self):
        done = self.write("put", "--ttl", "1h", self.key("long"), "x")
        row, = self.node.json("kv", "get", "--session", self.file, self.key("long"))
        self.assertEqual(row["expires_ms"], (done["hlc"] >> 16) + 3600 * 1000)
        self.write("put", "--ttl", "1ms", self.key("short"), "x")
        wait_for(lambda: self.get(self.key("short"), check=False).returncode == 1, "the end of 1 ms")
        self.assertEqual(self.scan(), {"long": (b"x", None)})
        self.write("put", self.key("short"), "for ever")
        self.assertEqual(self.get(self.key("short")).stdout, b"for ever\n")
        self.assertEqual(self.node.ctl("kv", "put", "--ttl", "0s", "k", "v", check=False).returncode, 2)

    # ---------------------------------------------------------------- scans

    def test_a_scan_has_what_begins_with_the_prefix(self):
        names = [f"{i:02}" for i in range(20)]
        self.txn("".join(f"put {self.key(name)} v{name}\n" for name in names).encode())
        self.write("put", self.prefix[:-1] + "0", "behind all that begin with it")
        self.assertEqual(self.scan(), {name: (f"v{name}".encode(), None) for name in names})
        self.assertEqual(list(self.scan(prefix=self.key("1"))), names[10:])
        self.assertEqual(list(self.scan("--count", "3")), names[:3])
        self.assertEqual(list(self.scan("--behind", self.key("17"))), names[18:])
        self.assertEqual(list(self.scan("--behind", self.key("17x"))), names[18:])
        self.assertEqual(self.scan("--keys-only"), {name: (None, None) for name in names})
        self.assertEqual(self.scan(prefix=self.key("x")), {})
        self.assertEqual(self.node.ctl("kv", "scan", self.key("x")).stdout, b"")

    def test_behind_a_key_before_the_prefix_is_all_of_the_prefix(self):
        self.txn("".join(f"put {self.key(name)} x\n" for name in ("a", "aa", "b1", "c")).encode())
        self.assertEqual(list(self.scan("--behind", self.key("a"), prefix=self.key("b"))), ["b1"])
        self.assertEqual(list(self.scan("--behind", self.key("c"), prefix=self.key("b"))), [])

    def test_a_scan_of_more_than_one_answer_misses_none(self):
        names = [f"{i:05}" for i in range(2500)]
        self.txn("".join(f"put {self.key(name)} {name}\n" for name in names).encode())
        self.txn("".join(f"del {self.key(name)}\n" for name in names[::2]).encode())
        self.assertEqual(list(self.scan()), names[1::2])
        self.assertEqual(list(self.scan("--count", "1001")), names[1:2003:2])
        for i in range(3):
            self.write("put", self.key(f"large{i}"), "-", input=bytes([i]) * (700 << 10))
        self.assertEqual([len(value) for value, _ in self.scan(prefix=self.key("large")).values()], [700 << 10] * 3)
        done = self.get(*(self.key(f"large{i}") for i in range(3)))
        self.assertEqual(done.stdout, b"".join(f"{self.key(f'large{i}')}\t".encode() + bytes([i]) * (700 << 10) + b"\n"
                                               for i in range(3)))

    def test_a_scan_of_keys_says_which_have_a_value(self):
        self.txn(f"put {self.key('both')} v\nincr {self.key('both')}\nput {self.key('gone')} v\nincr {self.key('gone')}\n"
                 f"del {self.key('gone')}\nincr {self.key('sum')}\n".encode())
        self.assertEqual(len(self.scan()), 3)
        caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        kind, body = caller.ask(KV_SCAN, {1: self.prefix.encode(), 3: 10, 4: True})
        self.assertEqual(kind, KV_SCAN_REPLY)
        self.assertEqual([(row[1], row[6]) for row in body[1]], [(b"", 1), (None, 1), (None, 1)])

    # ---------------------------------------------------------------- counters

    def test_a_counter_adds_up_and_no_delete_touches_it(self):
        for delta in ((), ("41",), ("--", "-50")):
            self.write("incr", *delta[:-1], self.key("n"), *delta[-1:])
        self.write("incr", self.key("m"), "9223372036854775807")
        self.assertEqual(self.get(self.key("n")).stdout, b"-8\n")
        self.write("put", self.key("n"), "value")
        self.assertEqual(self.scan(), {"m": (None, (1 << 63) - 1), "n": (b"value", -8)})
        self.write("del", self.key("n"))
        self.assertEqual(self.get(self.key("n")).stdout, b"-8\n")
        self.write("incr", self.key("m"), "1")
        self.assertEqual(self.get(self.key("m")).stdout, b"-9223372036854775808\n", "sums wrap around")
        for word in ("", "x", "1x", "1.5", "9223372036854775808"):
            self.assertEqual(self.node.ctl("kv", "incr", self.key("n"), word, check=False).returncode, 2, word)

    # ---------------------------------------------------------------- several at once

    def test_a_txn_applies_as_one(self):
        self.txn(f"put {self.key('a')} with spaces  in it \n\nput {self.key('b')}\nincr {self.key('n')}\n"
                 f"incr {self.key('n')} -3\ndel {self.key('a')}\nput {self.key('a')} last".encode())
        self.assertEqual(self.scan(), {"a": (b"last", None), "b": (b"", None), "n": (None, -2)})

    def test_a_txn_with_a_bad_line_does_nothing(self):
        good = f"put {self.key('a')} x\n".encode()
        k = self.key("k").encode()
        for bad, why in ((b"set k v", "an operation is"), (b"put", "a key is missing"), (b"del ", "a key is missing"),
                         (b"incr %s x" % k, "not a number"), (b"incr %s 9223372036854775808" % k, "not a number"),
                         (b"del %s %s" % (k, k), "one key"), (b"put %s a\0b" % k, "NUL"), (b"\0", "NUL")):
            with self.subTest(bad=bad):
                done = self.txn(good + bad + b"\n" + good, check=False)
                self.assertEqual(done.returncode, 2)
                self.assertIn(b"line 2: ", done.stderr)
                self.assertIn(why.encode(), done.stderr)
        self.assertEqual(self.txn(b"\n\n", check=False).returncode, 2)
        self.assertEqual(self.txn(good + b"put %s y\n" % (b"k" * 4097), check=False).returncode, 3)
        done = self.txn(b"incr %s\n" % k * 65537, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"65,536", done.stderr)
        self.assertEqual(self.scan(), {})

    # ---------------------------------------------------------------- limits

    def test_keys_have_1_to_4096_bytes(self):
        longest = self.key().ljust(4096, "k")
        self.write("put", longest, "x")
        self.assertEqual(self.get(longest).stdout, b"x\n")
        self.assertEqual(list(scan(self.node, longest)), [longest.encode()])
        self.assertEqual(scan(self.node, "--behind", longest, longest), {})
        for args in (("put", "", "v"), ("del", ""), ("incr", ""), ("get", "")):
            self.refused(3, "bad_request", "kv", *args)
        for args in (("put", longest + "k", "v"), ("del", longest + "k"), ("incr", longest + "k"), ("get", longest + "k"),
                     ("scan", longest + "k"), ("scan", "--behind", longest + "k")):
            self.assertIn("4,096 bytes", self.refused(3, "too_large", "kv", *args))
        self.refused(3, "too_large", "kv", "put", "k", "-", input=bytes(17 << 20))
        self.assertEqual(self.node.ctl("kv", "get", *["k"] * 1001, check=False).returncode, 2)

    def test_messages_that_are_none_are_refused(self):
        gets = ({1: []}, {1: [b"k"] * 1001}, {1: [b""]}, {1: [bytes(4097)]}, {1: ["k", 1]}, {1: b"k"}, {1: [b"k"], 2: 1},
                {1: [b"k"], 2: [1]}, {1: [b"k"], 2: [[bytes(15), 1]]},
                {1: [b"k"], 3: 60001}, {})
        scans = ({3: 0}, {3: 10001}, {1: bytes(4097), 3: 1}, {2: bytes(4097), 3: 1}, {})
        caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
        for message, bodies in ((KV_GET, gets), (KV_SCAN, scans)):
            for i, body in enumerate(bodies):
                self.assertEqual(caller.ask(message, body)[0], ERROR, (message, i))
        self.assertEqual(self.get(self.key("k"), check=False).returncode, 1, "it goes on")

    # ---------------------------------------------------------------- sessions

    def test_who_wrote_reads_it_at_once(self):
        for i in range(200):
            self.write("put", self.key("mine"), str(i))
            self.assertEqual(self.get(self.key("mine")).stdout, b"%d\n" % i)

    def test_what_was_read_once_is_read_again(self):
        done = self.write("put", self.key("a"), "x")
        other = self.session()
        wait_for(lambda: self.node.ctl("kv", "get", "--session", other, self.key("a"), check=False).returncode == 0,
                 "the value without a session that knows of it")
        with open(other, encoding="ascii") as file:
            seen = dict(line.split() for line in file)
        self.assertGreaterEqual(int(seen[done["log"]]), done["lsn"])

    def test_a_file_that_is_no_session_is_refused_and_left_alone(self):
        row = f"{NOBODY} 1\n".encode()
        for text in (b"\n", b"x\n", row[:-1], row[:-3] + b"\n", row + b"x", row.replace(b"1\n", b"-1\n"),
                     row.replace(b" 1\n", b" +1\n"), row.replace(b" 1\n", b"  1\n"), row.replace(b" 1\n", b" 1 \n"),
                     row.replace(b" 1\n", b" 18446744073709551616\n"), row.replace(b"-", b"_"), row + b"\0",
                     b"".join(b"%08x%s" % (i, row[8:]) for i in range(257))):
            with self.subTest(text=text):
                path = self.session(text)
                for args in (("get", "k"), ("scan",), ("put", self.key("a"), "x")):
                    self.assertIn("not the file of a session",
                                  self.refused(3, "bad_request", "kv", args[0], "--session", path, *args[1:]))
                with open(path, "rb") as file:
                    self.assertEqual(file.read(), text)
        self.assertEqual(self.node.ctl("kv", "get", "--session", self.node.dir, "k", check=False).returncode, 3)
        self.assertEqual(self.scan(), {})

    def test_what_cannot_be_reached_in_time_says_how_far_it_is(self):
        done = self.write("put", self.key("a"), "x")
        for log, least in ((done["log"], done["lsn"]), (NOBODY, 0)):
            ahead = self.session(f"{log} {done['lsn'] + 1000000}\n".encode())
            for args in (("get", self.key("a")), ("scan", self.prefix)):
                def said(args=args, ahead=ahead, log=log):
                    """None: that there was no answer, by a node that was held up for so long."""
                    text = self.refused(3, "timeout", "--timeout", "500ms", "kv", args[0], "--session", ahead, *args[1:])
                    self.assertNotIn("outcome", text, "a read has none")
                    return re.match(rf"log {log} is wanted up to LSN {done['lsn'] + 1000000}, and applied here up to (\d+)",
                                    text)
                wait_for(lambda said=said, least=least: (how := said()) and int(how[1]) >= least, "how far it is")


class Kills(KvTest):
    """What is applied is applied once."""

    def setUp(self):
        self.node = Node("wal: {segment_size: 1MiB}\nquery: {view: true}", SUPERVISOR).start()
        self.addCleanup(self.node.close)
        self.file = self.session()
        self.model, self.failures, self.ends = {}, [], threading.Event()

    def write(self, seed):
        """A txn, and what it does to the model."""
        rng = random.Random(seed)
        lines = []
        for _ in range(20):
            key = b"%04d" % rng.randrange(500)
            value, counter = self.model.get(key, (None, None))
            verb = rng.choice((b"put", b"del", b"incr"))
            if verb == b"put":
                value = b"x" * rng.randrange(300) + b"%d" % seed
                lines.append(b"put %s %s" % (key, value))
            elif verb == b"del":
                value = None
                lines.append(b"del %s" % key)
            else:
                delta = rng.randrange(-1000, 1000)
                counter = (counter or 0) + delta
                lines.append(b"incr %s %d" % (key, delta))
            self.model[key] = (value, counter)
        self.node.ctl("kv", "txn", "--session", self.file, input=b"\n".join(lines))

    def write_on(self):
        seed = 0
        try:
            while not self.ends.is_set():
                self.write(seed)
                seed += 1
        except AssertionError as error:
            self.failures.append(error)
        self.written = seed

    def expected(self):
        return {key: row for key, row in self.model.items() if row != (None, None)}

    def while_writing(self, act):
        writer = threading.Thread(target=self.write_on)
        writer.start()
        try:
            for _ in range(KILLS):
                act()
        finally:
            self.ends.set()
            writer.join()
        self.assertEqual(self.failures, [])
        self.assertGreater(self.written, KILLS)

    def durable_lsn(self):
        return self.node.json("status")["durable_lsn"]

    def lsn_on_disk(self, caller):
        """Of the view."""
        kind, body = caller.ask(VIEW_INFO, {})
        self.assertEqual(kind, VIEW_INFO_REPLY)
        return max((place[2] for place in body[3]), default=0)

    def test_kills_of_querysvc_count_nothing_twice(self):
        kills = 0

        def kill():
            nonlocal kills
            kills += 1
            before = wait_for(self.durable_lsn, "the first entry")
            if kills % 2 == 0:
                wait_for(lambda: self.durable_lsn() > before + 100, "more to be written")
            else:
                caller = Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out")
                wait_for(lambda: self.lsn_on_disk(caller) > before, "some of the view to be on disk")
            self.node.kill("querysvc")
        self.while_writing(kill)
        self.assertEqual(scan(self.node, "--session", self.file), self.expected())
        self.node.kill_all()
        self.node.start()
        self.assertEqual(scan(self.node, "--session", self.file), self.expected())

    def test_a_view_that_is_gone_is_made_again(self):
        for seed in range(50):
            self.write(seed)
        self.assertEqual(scan(self.node, "--session", self.file), self.expected())
        before = self.node.json("kv", "scan")
        self.assertEqual(self.node.stop(), 0)
        self.node.start()
        self.assertEqual(self.node.json("kv", "scan", "--session", self.file), before)
        self.assertEqual(self.node.stop(), 0)
        shutil.rmtree(os.path.join(self.node.data, "view"))
        self.node.start()
        self.assertEqual(self.node.json("kv", "scan", "--session", self.file), before)

    def keep(self, name):
        """What the folder holds now, the node has stopped; returns what puts it back."""
        folder, kept = os.path.join(self.node.data, name), os.path.join(self.node.dir, f"kept-{name}")
        shutil.copytree(folder, kept)

        def put_back():
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
        return put_back

    def test_a_log_that_was_set_back_takes_the_view_with_it(self):
        def values():
            return {key: value for key, (value, _) in scan(self.node).items()}
        before, lost, new = ({b"k": text.encode()} for text in ("before", "lost", "new"))
        self.node.ctl("kv", "put", "k", "before")
        self.assertEqual(self.node.stop(), 0)
        set_log_back = self.keep("log")
        self.node.start()
        self.node.ctl("kv", "put", "k", "lost")
        self.node.ctl("kv", "put", "other", "lost")
        wait_for(lambda: values() == {**lost, b"other": b"lost"}, "both to be applied")
        self.assertEqual(self.node.stop(), 0)
        set_view_forth = self.keep("view")
        set_log_back()
        self.node.start()
        wait_for(lambda: values() == before, "the view to be made again")
        self.assertTrue(self.node.log_lines("a log holds other entries than were applied"))
        self.node.ctl("kv", "put", "k", "new")  # the LSNs of what was lost
        self.node.ctl("kv", "put", "new", "too")
        self.assertEqual(self.node.stop(), 0)
        set_view_forth()
        self.node.start()
        wait_for(lambda: values() == {**new, b"new": b"too"}, "the view to be made again")

    def test_a_view_that_is_damaged_is_named_and_the_node_goes_on(self):
        self.write(1)
        self.assertEqual(self.node.stop(), 0)
        view = os.path.join(self.node.data, "view")
        with open(os.path.join(view, "CURRENT"), "wb") as current:
            current.write(b"nonsense\n")
        self.node.start()

        def says_why():  # who is held up for a second says that there was no answer
            done = self.node.ctl("--timeout", "1s", "kv", "get", "k", check=False)
            self.assertEqual(done.returncode, 3, done)
            return b"unavailable: the view is not open: Corruption" in done.stderr
        wait_for(says_why, "the reason")
        self.node.ctl("append", "x")
        wait_for(lambda: self.node.log_lines("the view cannot go on"), "it to be logged")
        os.rename(view, f"{view}.damaged")  # at once: it is looked at again each second
        self.assertEqual(scan(self.node, "--session", self.file), self.expected())


if __name__ == "__main__":
    unittest.main()
