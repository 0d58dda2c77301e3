"""Appends that want more than their node: they wait for what replsvc tells walsvc, here a caller that speaks in its place,
and their time is over without it."""
import json
import signal
import subprocess
import time
import unittest

from caller import Caller
from shanghai import Node, wait_for

ERROR, APPEND, APPEND_REPLY, REPLICATED, REPLICATED_REPLY = 3, 16, 17, 52, 53
BAD_REQUEST = 1
LOCAL, QUORUM, ALL = 0, 1, 2
ALONE = 2**64 - 1
LONG = "10m"  # longer than any test


class Acks(unittest.TestCase):
    def setUp(self):
        self.node = Node().start()
        self.addCleanup(self.node.close)
        self.silence_replsvc()
        self.appending = []
        self.addCleanup(self.end_appending)

    def silence_replsvc(self):
        """What it has told is forgotten with walsvc."""
        if "replsvc" in self.node.tree():
            self.node.stop_service("replsvc")
            before = self.node.pid("walsvc")
            self.node.ctl("svc", "restart", "walsvc")
            wait_for(lambda: self.node.pid("walsvc") != before, "another walsvc")
            self.node.wait_ready()

    def end_appending(self):
        for process in self.appending:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def wal(self):
        return Caller(self, f"{self.node.run}/wal.in", f"{self.node.run}/wal.out")

    def replicated(self, quorum_lsn, all_lsn, caller=None):
        self.assertEqual((caller or self.wal()).ask(REPLICATED, {1: quorum_lsn, 2: all_lsn}), (REPLICATED_REPLY, {}))

    def start_append(self, *args, endpoint=None):
        """shanghaictl append, at work."""
        process = subprocess.Popen(
            self.node.ctl_command("--format", "json", "append", "--ack-timeout", LONG, *args, endpoint=endpoint),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.appending.append(process)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=60)
        return process.returncode, json.loads(out), err

    def durable_lsn(self):
        return self.node.json("status")["durable_lsn"]

    def wait_durable(self, lsn):
        wait_for(lambda: self.durable_lsn() == lsn, f"LSN {lsn} to be durable")

    def short(self, *args, **options):
        """An append that cannot reach its level: (result, what was said)."""
        done = self.node.ctl("--format", "json", "append", *args, check=False, **options)
        self.assertEqual(done.returncode, 1, done.stderr)
        return json.loads(done.stdout), json.loads(done.stderr)

    # ---------------------------------------------------------------- waiting

    def test_an_append_is_answered_when_its_level_is_reached(self):
        for endpoint in (self.node.endpoint, self.node.tcp):
            with self.subTest(endpoint=endpoint):
                first = self.durable_lsn() + 1
                quorum = self.start_append("--ack", "quorum", "a", "b", endpoint=endpoint)
                self.wait_durable(first + 1)
                everywhere = self.start_append("--ack", "all", "c", endpoint=endpoint)
                self.wait_durable(first + 2)
                self.replicated(first, first)  # not the last one of the two
                self.assertEqual((quorum.poll(), everywhere.poll()), (None, None))
                self.replicated(first + 1, first)
                code, done, _ = self.finish(quorum)
                self.assertEqual((code, done["ack"], done["wanted"], done["not_reached"]), (0, "quorum", "quorum", 0))
                self.assertEqual(done["first"]["lsn"], first)
                self.assertIsNone(everywhere.poll())
                self.replicated(first + 2, first + 2)
                code, done, _ = self.finish(everywhere)
                self.assertEqual((code, done["ack"], done["first"]["lsn"]), (0, "all", first + 2))

    def test_a_node_that_is_alone_has_all(self):
        self.replicated(ALONE, ALONE)
        for level in ("quorum", "all"):
            self.assertEqual(self.node.json("append", "--ack", level, "x")["ack"], "all")
        self.assertEqual(self.node.json("append", "x")["ack"], "local")
        self.assertIn("durable (all)", self.node.ctl("append", "--ack", "all", "x").stdout.decode())
        self.assertEqual(self.node.json("bench", "append", "--ack", "quorum", "--duration", "50ms")["errors"], 0)

    def test_local_appends_do_not_wait_for_others(self):
        waiting = self.start_append("--ack", "quorum", "x")
        self.wait_durable(1)
        self.assertEqual(self.node.json("append", "y")["last"]["lsn"], 2)  # another session
        wal = self.wal()  # and one session
        none = {1: bytes(16), 2: 0, 3: 0, 6: [[0, "", b"z"]]}
        slow = wal.send(APPEND, {**none, 4: ALL, 5: 600000})
        fast = wal.send(APPEND, {**none, 4: LOCAL, 5: 0})
        self.assertEqual(wal.take()[0], fast)
        self.assertIsNone(waiting.poll())
        wal.send(REPLICATED, {1: 4, 2: 4})
        answers = {number: (kind, body.get(4)) for number, kind, body in (wal.take(), wal.take())}
        self.assertEqual(answers[slow], (APPEND_REPLY, ALL))
        self.assertEqual(self.finish(waiting)[0], 0)

    def test_many_remote_appends_that_wait_hold_up_no_other(self):
        each = 200  # together more than the requests that querysvc may have unanswered at walsvc, each fewer
        callers = [Caller(self, f"{self.node.run}/query.in", f"{self.node.run}/query.out") for _ in range(2)]
        for caller in callers:
            for _ in range(each):
                caller.send(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: QUORUM, 5: 600000, 6: [[0, "", b"x"]]})

        def poll():
            for caller in callers:
                caller.poll()  # a session that does not is dropped
            return True
        wait_for(lambda: poll() and self.durable_lsn() >= 256, "what may be unanswered to be durable")
        other = self.start_append("y", endpoint=self.node.tcp)
        wait_for(lambda: poll() and other.poll() is not None, "the other append")
        self.assertEqual(self.finish(other)[0], 0)
        self.replicated(ALONE, ALONE, self.wal())
        for caller in callers:
            for _ in range(each):
                _, kind, body = caller.take()
                self.assertEqual((kind, body[4]), (APPEND_REPLY, ALL))

    # ---------------------------------------------------------------- the time is over

    def test_when_the_time_is_over_what_was_reached_is_told(self):
        done, said = self.short("--ack", "all", "--ack-timeout", "100ms", "a", "b")
        self.assertEqual((done["entries"], done["ack"], done["wanted"], done["not_reached"]), (2, "local", "all", 2))
        self.assertEqual(said["error"], "no_quorum")
        self.assertIn("2 of 2 entries did not reach `all` within 100 ms", said["text"])
        self.assertIn("durable on this node, `local` was reached", said["text"])
        self.assertEqual(self.node.ctl("--format", "raw", "read").stdout, b"a\nb\n")
        for seconds in (3, 20):  # the short time may be over before it is told
            lsn, begin = self.durable_lsn() + 1, time.monotonic()
            waiting = self.start_append("--ack", "all", "--ack-timeout", f"{seconds}s", "c")
            self.wait_durable(lsn)
            self.replicated(lsn, 1)
            in_time = time.monotonic() - begin < seconds
            code, done, err = self.finish(waiting)
            if in_time:
                break
        self.assertEqual((code, done["ack"]), (1, "quorum"))
        self.assertIn(b"`quorum` was reached", err)
        text = self.node.ctl("append", "--ack", "quorum", "--ack-timeout", "0s", "d", check=False)
        self.assertEqual(text.returncode, 1)
        self.assertIn(b"1 entry durable (local)", text.stdout)
        self.assertIn(b"may still reach the others", text.stderr)

    def test_the_rest_of_the_input_is_appended(self):
        lines = b"".join(b"%d\n" % i for i in range(100))
        done, said = self.short("--ack", "quorum", "--ack-timeout", "20ms", "--batch", "10", "-", input=lines)
        self.assertEqual((done["entries"], done["not_reached"]), (100, 100))
        self.assertIn("100 of 100 entries", said["text"])
        self.assertEqual(self.node.ctl("--format", "raw", "read", "--count", "100").stdout, lines)

    def test_a_bench_without_its_level_has_failed(self):
        done = self.node.ctl("bench", "append", "--ack", "quorum", "--ack-timeout", "10ms", check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn(b"no_quorum", done.stderr)

    # ---------------------------------------------------------------- again

    def test_the_same_sequence_has_its_lsn_and_waits_again(self):
        self.node.json("append", "before")
        wal = self.wal()
        append = {1: b"p" * 16, 2: 1, 3: 1, 4: QUORUM, 6: [[0, "", b"x"]]}
        kind, body = wal.ask(APPEND, {**append, 5: 0})
        self.assertEqual((kind, body[2], body[4]), (APPEND_REPLY, 2, LOCAL))
        again = wal.send(APPEND, {**append, 5: 600000})
        told = wal.send(REPLICATED, {1: 2, 2: 0})
        answers = {number: (kind, body.get(2), body.get(4)) for number, kind, body in (wal.take(), wal.take())}
        self.assertEqual(answers[again], (APPEND_REPLY, 2, QUORUM))
        self.assertEqual(answers[told][0], REPLICATED_REPLY)
        self.assertEqual(self.durable_lsn(), 2)

    def test_a_killed_walsvc_is_asked_again(self):
        for endpoint in (self.node.endpoint, self.node.tcp):
            with self.subTest(endpoint=endpoint):
                lsn = self.durable_lsn() + 1
                waiting = self.start_append("--ack", "quorum", "x", endpoint=endpoint)
                self.wait_durable(lsn)
                killed = self.node.kill("walsvc")
                wait_for(lambda: self.node.pid("walsvc") != killed, "another walsvc")
                self.replicated(lsn, lsn)
                code, done, _ = self.finish(waiting)
                self.assertEqual((code, done["ack"], done["first"]["lsn"]), (0, "all", lsn))
                self.assertEqual(self.durable_lsn(), lsn)

    def test_a_clean_stop_answers_with_what_was_reached(self):
        waiting = self.start_append("--ack", "quorum", "x")
        self.wait_durable(1)
        self.assertEqual(self.node.stop(), 0)
        code, done, _ = self.finish(waiting)
        self.assertEqual((code, done["ack"], done["first"]["lsn"]), (1, "local", 1))

    def test_a_client_that_is_killed_leaves_nothing_behind(self):
        gone = self.start_append("--ack", "quorum", "x")
        self.wait_durable(1)
        gone.send_signal(signal.SIGKILL)
        gone.wait(30)
        waiting = self.start_append("--ack", "quorum", "y")
        self.wait_durable(2)
        self.replicated(2, 0)
        self.assertEqual(self.finish(waiting)[0], 0)

    # ---------------------------------------------------------------- who tells

    def test_what_cannot_be_is_refused(self):
        waiting = self.start_append("--ack", "quorum", "x")
        self.wait_durable(1)
        wal = self.wal()
        for body in ({1: 2, 2: 0}, {1: ALONE, 2: 2}, {1: 0, 2: 1}, {1: 1}):
            with self.subTest(body=body):
                kind, error = wal.ask(REPLICATED, body)
                self.assertEqual((kind, error[1]), (ERROR, BAD_REQUEST))
        wait_for(lambda: len(self.node.log_lines("replicated LSNs that cannot be")) == 3,
                 "the three that are well-formed in the log")
        self.assertIsNone(waiting.poll())
        self.replicated(1, 0, wal)
        self.assertEqual(self.finish(waiting)[0], 0)

    def test_querysvc_passes_it_on_from_nobody(self):
        self.node.json("append", "x")
        links = [(f"{self.node.run}/query.in", f"{self.node.run}/query.out"),
                 (("127.0.0.1", self.node.port), ("127.0.0.1", self.node.port + 1))]
        for link in links:
            with self.subTest(link=link):
                kind, error = Caller(self, *link).ask(REPLICATED, {1: ALONE, 2: ALONE})
                self.assertEqual((kind, error[1]), (ERROR, BAD_REQUEST))
        self.assertEqual(self.short("--ack", "quorum", "--ack-timeout", "0s", "y")[0]["ack"], "local")


if __name__ == "__main__":
    unittest.main()
