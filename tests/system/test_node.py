"""One node, end to end, as a user would: append, read, look at it, stop it."""
import base64
import json
import os
import subprocess
import unittest

from shanghai import SERVICES, Node, wait_for


class OneNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node("query: {view: true}").start()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def append(self, data, *args, **options):
        out = self.node.ctl("--format", "json", "append", *args, "-", input=data, **options)
        return json.loads(out.stdout)

    def read_raw(self, first, count, **options):
        return self.node.ctl("--format", "raw", "read", "--from", str(first), "--count", str(count), **options).stdout

    def test_lines_come_back_byte_for_byte(self):
        data = b"".join(b"%d\n" % i for i in range(1, 200001))
        for endpoint in (self.node.endpoint, self.node.tcp):
            done = self.append(data, "--batch", "100", endpoint=endpoint)
            self.assertEqual(done["entries"], 200000)
            self.assertEqual(done["last"]["lsn"] - done["first"]["lsn"], 199999)
            self.assertEqual(done["ack"], "local")
            for name in ("seconds", "rate", "p50_us", "p99_us", "bytes"):
                self.assertGreater(done[name], 0)
            self.assertEqual(self.read_raw(done["first"]["lsn"], 200000, endpoint=endpoint), data)

    def test_empty_lines_and_a_missing_last_newline_are_exact(self):
        for data, entries in ((b"\n\na\n\n", 4), (b"a\nb", 2), (b"\n", 1), (b"", 0),
                              (bytes(b for b in range(256) if b != 10), 1)):
            done = self.append(data)
            self.assertEqual(done["entries"], entries, data)
            if entries:
                back = self.read_raw(done["first"]["lsn"], entries)
                self.assertEqual(back, data if data.endswith(b"\n") else data + b"\n")

    def test_a_line_of_megabytes(self):
        data = os.urandom(3 << 20).replace(b"\n", b"x") + b"\n"
        done = self.append(data)
        self.assertEqual(self.read_raw(done["first"]["lsn"], 1), data)

    def test_a_line_beyond_the_limit_is_refused_by_name(self):
        done = self.node.ctl("append", "-", input=b"x" * (17 << 20), check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"too_large", done.stderr)

    def test_json_carries_any_bytes(self):
        done = self.append(b"caf\xc3\xa9\n\xff\xfe\n")
        first = done["first"]["lsn"]
        rows = [json.loads(line) for line in
                self.node.ctl("--format", "json", "read", "--from", str(first), "--count", "2").stdout.splitlines()]
        self.assertEqual((rows[0]["stream"], rows[0]["payload"]), ("", "caf\u00e9"))
        self.assertEqual(base64.b64decode(rows[1]["payload_base64"]), b"\xff\xfe")

    def test_values_as_arguments_and_streams(self):
        done = self.node.json("append", "--stream", "orders", "one", "two")
        self.assertEqual(done["entries"], 2)
        first = done["first"]["lsn"]
        self.append(b"other\n")
        out = self.node.ctl("--format", "raw", "read", "--from", str(first), "--stream", "orders").stdout
        self.assertEqual(out, b"one\ntwo\n")

    def test_what_was_appended_is_there_for_the_next_read(self):
        for i in range(100):
            done = self.node.json("append", str(i))
            self.assertEqual(self.read_raw(done["last"]["lsn"], 1), b"%d\n" % i)

    def test_status_tree_and_log_info(self):
        status = self.node.json("status")
        self.assertEqual(status["node"], "n1")
        self.assertTrue(status["writable"])
        tree = self.node.tree()
        for service in SERVICES:
            for name in ("pid", "state", "restarts", "uptime_ms", "last_exit"):
                self.assertIn(name, tree[service])
        info = self.node.json("log", "info")
        self.assertGreaterEqual(len(info["segments"]), 1)
        for command in (("status",), ("svc", "tree"), ("log", "info"), ("version",)):
            self.assertTrue(self.node.ctl(*command).stdout)

    def test_verify_on_the_running_node_and_dump(self):
        self.append(b"a\nb\n")
        self.assertEqual(self.node.ctl("log", "verify", "--data", self.node.data).returncode, 0)
        self.assertIn(b"checkpoint", self.node.ctl("log", "dump", "--data", self.node.data).stdout)

    def test_tail_follows(self):
        tail = subprocess.Popen(self.node.ctl_command("--format", "raw", "tail", "-f", "--stream", "news"),
                                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            os.set_blocking(tail.stdout.fileno(), False)
            seen = b""
            sent = 0

            def see():
                nonlocal seen, sent
                sent += 1
                self.node.ctl("append", "--stream", "news", f"item {sent}")
                seen += tail.stdout.read() or b""
                return seen
            wait_for(see, "tail to show something")
            lines = seen.splitlines()
            first = int(lines[0].split()[1])
            self.assertEqual(lines, [b"item %d" % (first + i) for i in range(len(lines))])
        finally:
            tail.kill()
            tail.wait()
            tail.stdout.close()

    def test_wrong_usage_is_exit_2_and_nobody_there_is_exit_3(self):
        self.assertEqual(self.node.ctl("no-such-command", check=False).returncode, 2)
        self.assertEqual(self.node.ctl("read", "--from", "x", check=False).returncode, 2)
        gone = self.node.ctl("--timeout", "200ms", "status", endpoint=f"ipc://{self.node.dir}/nobody", check=False)
        self.assertEqual(gone.returncode, 3)


class ShortCommands(unittest.TestCase):
    def test_commands_that_have_ended_leave_their_places_to_the_next(self):
        with Node("link:\n  sessions: 16") as node:
            node.start()
            for i in range(40):
                self.assertEqual(node.json("append", str(i))["first"]["lsn"], i + 1)
            wait_for(lambda: node.json("status")["clients"] == 2, "status to count itself and obssvc")
            self.assertFalse(node.log_lines("too many"))


class Correlation(unittest.TestCase):
    @staticmethod
    def ids(node, service, msg):
        lines = [json.loads(line) for line in node.log_lines(f'"msg":"{msg}"')]
        return [line["correlation_id"] for line in lines if line["service"] == service and "correlation_id" in line]

    def test_a_request_is_followed_by_its_id_through_all_daemons(self):
        with Node("log:\n  level: debug") as node:
            node.start()
            before = len(self.ids(node, "walsvc", "append"))
            for i in range(3):
                node.ctl("append", str(i), endpoint=node.tcp)
            for service, message, count in (("walsvc", "append", before + 3), ("querysvc", "append passed on", 3)):
                wait_for(lambda who=service, what=message, count=count: len(self.ids(node, who, what)) >= count,
                         f"the lines of {service}")
            passed_on = self.ids(node, "querysvc", "append passed on")
            self.assertEqual(len(set(passed_on)), 3)
            self.assertEqual(self.ids(node, "walsvc", "append")[before:], passed_on)
            self.assertLessEqual(set(passed_on), set(self.ids(node, "querysvc", "request")))

            commands = len(self.ids(node, "shanghaid", "command"))
            node.ctl("svc", "restart", "querysvc")
            wait_for(lambda: len(self.ids(node, "shanghaid", "command")) > commands, "the command's line")


class Stopping(unittest.TestCase):
    def test_a_clean_stop_leaves_nothing_running_and_the_next_start_goes_on(self):
        with Node() as node:
            node.start()
            node.ctl("append", "before")
            node.tree()
            self.assertEqual(node.stop(), 0)
            self.assertFalse([pid for pid in node.ever if node.is_left(pid)])
            node.start()
            self.assertEqual(node.json("append", "after")["first"]["lsn"], 2)
            self.assertEqual(node.ctl("--format", "raw", "read", "--from", "1").stdout, b"before\nafter\n")
            node.ctl("shutdown")
            self.assertEqual(node.process.wait(60), 0)
            node.process = None

    def test_segments_roll_and_are_read_across(self):
        with Node("wal: {segment_size: 4MiB}") as node:
            node.start()
            data = b"".join(b"%d:%s\n" % (i, b"x" * 500) for i in range(60000))
            node.ctl("append", "--batch", "50", "-", input=data)
            self.assertGreater(len(node.json("log", "info")["segments"]), 5)
            self.assertEqual(node.ctl("--format", "raw", "read", "--from", "1").stdout, data)
            self.assertEqual(node.stop(), 0)
            node.ctl("log", "verify", "--data", node.data)
            node.start()
            self.assertEqual(node.json("append", "on")["first"]["lsn"], 60001)


if __name__ == "__main__":
    unittest.main()
