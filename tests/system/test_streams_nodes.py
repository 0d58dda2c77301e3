"""One stream that three nodes write to: what each node shows of it, readers that move, cause before effect."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest
import uuid

from caller import Caller
from cluster import SUPERVISOR, TIMES, Cluster
from shanghai import wait_for

WRITES = 600 if os.environ.get("SHANGHAI_LONG") else 60
SETTINGS = TIMES + "\nquery: {view: true}"
PATIENT = SUPERVISOR.replace("}", ", children: [{service: walsvc}, {service: membersvc}, "
                             "{service: replsvc, watchdog: 60s}, {service: querysvc}]}")  # one is stopped for a while
STALL_S = 10  # how long a view waits for a log that does not go on (VIEW_GATE_STALL_NS)
APPEND, APPEND_REPLY, VIEW_INFO, VIEW_INFO_REPLY = 16, 17, 132, 133


def caller_of(test, node):
    return Caller(test, f"{node.run}/query.in", f"{node.run}/query.out")


class StreamsNodes(unittest.TestCase):
    def rows(self, node, *args, stream="s"):
        out = node.ctl("--format", "json", "read", "--stream", stream, *args).stdout
        return [json.loads(line) for line in out.splitlines()]

    def wait_events(self, cluster, count):
        for node in cluster.nodes.values():
            wait_for(lambda node=node: [row["events"] for row in node.json("stream", "list", "s")] == [count],
                     f"{node.name} to have all events", 90)

    def check_order(self, rows, written):
        """Each log's own order, and every event once."""
        for name, values in written.items():
            self.assertEqual([row["payload"] for row in rows if row["payload"].startswith(f"{name} ")], values)
        self.assertEqual(len(rows), sum(map(len, written.values())))
        for log in {row["log"] for row in rows}:
            lsns = [row["lsn"] for row in rows if row["log"] == log]
            self.assertEqual(lsns, sorted(set(lsns)))

    def test_every_node_has_the_events_of_all_and_readers_move(self):
        with Cluster(settings=SETTINGS).start() as cluster:
            nodes = list(cluster.nodes.values())
            written = {node.name: [f"{node.name} {i}" for i in range(WRITES)] for node in nodes}

            def write(node):
                for value in written[node.name]:
                    node.ctl("append", "--stream", "s", value)
            writers = [threading.Thread(target=write, args=(node,)) for node in nodes]
            for writer in writers:
                writer.start()
            file, moved = os.path.join(nodes[0].dir, "position"), []
            turn = 0
            while any(writer.is_alive() for writer in writers):
                moved += self.rows(nodes[turn % 3], "--position", file, "--count", "7")
                turn += 1
            for writer in writers:
                writer.join()
            self.wait_events(cluster, 3 * WRITES)
            for node in nodes:
                moved += self.rows(node, "--position", file, "--count", str(WRITES))
            moved += self.rows(nodes[1], "--position", file)
            self.check_order(moved, written)
            of_node = [self.rows(node) for node in nodes]
            for rows in of_node:
                self.check_order(rows, written)
                self.assertEqual({(row["log"], row["lsn"]): row["payload"] for row in rows},
                                 {(row["log"], row["lsn"]): row["payload"] for row in of_node[0]})
            listed = [node.json("stream", "list", "s") for node in nodes]
            self.assertEqual(listed[0], listed[1])
            self.assertEqual(listed[0], listed[2])
            self.assertEqual(listed[0][0]["logs"], 3)

            # A node that begins to read from nothing has another order of arrival, and all of it too.
            nodes[2].kill_all()
            for name in os.listdir(os.path.join(nodes[2].data, "view")):
                os.unlink(os.path.join(nodes[2].data, "view", name))
            half = self.rows(nodes[0], "--count", str(WRITES), "--position", file + ".half")
            nodes[2].start()
            self.wait_events(cluster, 3 * WRITES)
            self.check_order(half + self.rows(nodes[2], "--position", file + ".half"), written)

    def test_a_reader_that_follows_goes_on_at_the_next_node(self):
        with Cluster(settings=SETTINGS).start() as cluster:
            n1, n2, n3 = cluster.nodes.values()
            tail = subprocess.Popen(n1.ctl_command("--format", "raw", "tail", "-f", "--since", "1h", "--stream", "s",
                                                   endpoint=f"{n1.endpoint},{n2.endpoint}"),
                                    stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            seen = []
            reader = threading.Thread(target=lambda: seen.extend(line.decode().strip() for line in tail.stdout))
            reader.start()
            try:
                for i in range(30):
                    (n1, n3)[i % 2].ctl("append", "--ack", "all", "--ack-timeout", "60s", "--stream", "s", str(i))
                wait_for(lambda: len(seen) == 30, "the first events")
                n1.kill_all()
                for i in range(30, 60):
                    (n2, n3)[i % 2].ctl("append", "--stream", "s", str(i))
                wait_for(lambda: len(seen) >= 60, "the others")
            finally:
                tail.send_signal(signal.SIGTERM)
                tail.wait(60)
                reader.join()
                tail.stdout.close()
            self.assertEqual(sorted(map(int, seen)), list(range(60)))

    def view_error(self, node):
        kind, body = caller_of(self, node).ask(VIEW_INFO, {})
        self.assertEqual(kind, VIEW_INFO_REPLY)
        return body.get(2, "")

    def append_after(self, node, seen, value, stream="s", key="effect"):
        """What a session writes that has seen something elsewhere."""
        after = [4, [[uuid.UUID(log).bytes, lsn] for log, lsn in seen]]
        kind, body = caller_of(self, node).ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0,
                                                        6: [after, [0, stream, value], [1, key.encode(), value]]})
        self.assertEqual((kind, body[3]), (APPEND_REPLY, 3))
        return str(uuid.UUID(bytes=body[1])), body[2] + body[3] - 1

    def holds(self, node, log, lsn):
        info = node.try_json("log", "info", "--log", log)
        return info is not None and info["durable_lsn"] >= lsn

    def waits_for_cause(self, cluster, turn):
        """False when it took so long that n3's view may have gone on without."""
        n1, n2, n3 = cluster.nodes.values()
        stream, key = f"s{turn}", f"effect{turn}"
        stopped = n1.kill("replsvc", signal.SIGSTOP)  # nobody gets what n1 writes now
        try:
            cause = n1.json("append", "--stream", stream, "cause")["last"]
            begun = time.monotonic()

            def is_late():
                return time.monotonic() - begun > STALL_S - 1
            log, lsn = self.append_after(n2, [(cause["log"], cause["lsn"])], b"effect", stream, key)
            wait_for(lambda: self.holds(n3, log, lsn), "the effect to come to n3")
            waits = f"waits for log {cause['log']}, wanted up to LSN {cause['lsn']}"
            wait_for(lambda: waits in self.view_error(n3) or is_late(), "n3's view to wait for the cause")
            shown = self.rows(n3, stream=stream)
            got = n3.ctl("kv", "get", key, check=False).returncode
            n3.ctl("append", "--stream", f"other{turn}", "goes on")
            wait_for(lambda: n3.json("stream", "list", f"other{turn}"), "the view of other logs to go on")
            shown += self.rows(n3, stream=stream)
            late = is_late()
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_for(lambda: len(self.rows(n3, stream=stream)) == 2, "both to come")
        if late:
            return False
        self.assertEqual((shown, got), ([], 1))
        for node in (n2, n3):
            wait_for(lambda node=node: self.view_error(node) == "", "the wait to be over")
            self.assertEqual([row["payload"] for row in self.rows(node, stream=stream)], ["cause", "effect"], node.name)
        self.assertEqual(n3.ctl("kv", "get", key).stdout, b"effect\n")
        return True

    def test_no_node_shows_the_effect_before_its_cause(self):
        with Cluster(settings=SETTINGS, supervisor=PATIENT).start() as cluster:
            for node in cluster.nodes.values():
                node.ctl("append", "--ack", "all", "--ack-timeout", "60s", "--stream", "warm", node.name)
            n3 = cluster["n3"]
            wait_for(lambda: [row["events"] for row in n3.json("stream", "list", "warm")] == [3], "all logs on n3")
            self.assertTrue(any(self.waits_for_cause(cluster, turn) for turn in range(5)), "it was too late each time")

    def test_what_never_comes_is_not_waited_for_long(self):
        with Cluster(count=1, settings=SETTINGS).start() as cluster:
            n1 = cluster["n1"]
            own = n1.json("status")["log"]
            self.append_after(n1, [(own, 1 << 40), ("11111111-2222-4333-8444-555555555555", 5)], b"v")
            wait_for(lambda: len(self.rows(n1)) == 1, "a frame that waits for its own log, and one that is nowhere")
            self.assertEqual(self.view_error(n1), "")


if __name__ == "__main__":
    unittest.main()
