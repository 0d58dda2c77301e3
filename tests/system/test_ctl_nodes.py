"""shanghaictl about the cluster: nodes, node join and leave, events, health; on a node alone and on three."""
import json
import os
import signal
import subprocess
import unittest

from cluster import Cluster
from shanghai import Node, wait_for

TIMES = "member: {heartbeat_interval: 200ms, suspect_after: 600ms, down_after: 1200ms}"


class Alone(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.start()
        wait_for(lambda: (self.node.try_json("nodes") or {}).get("state") == "member", "a founded cluster")

    def refused(self, code, said, *args, endpoint=None):
        done = self.node.ctl(*args, check=False, endpoint=endpoint)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(said, done.stderr.decode())
        self.assertEqual(done.stdout, b"")

    def join(self, name, port=7000):
        return self.node.ctl("node", "join", name, "--host", "127.0.0.1", "--port", str(port)).stdout.decode()

    def test_a_node_alone_is_healthy(self):
        status = self.node.json("status")
        self.assertEqual((status["health"], status["reasons"], status["writes"]), ("healthy", [], "taken"))
        nodes = self.node.json("nodes")
        self.assertEqual((nodes["cluster"], nodes["node"], nodes["text"]), ("test", "n1", ""))
        self.assertEqual(nodes["counters"]["malformed"], 0)
        only = nodes["nodes"][0]
        self.assertEqual((only["id"], only["status"], only["self"], only["heartbeat_age_ms"], only["log"]),
                         ("n1", "up", True, None, status["log"]))
        self.assertIn(f"127.0.0.1:{self.node.port}", self.node.ctl("nodes").stdout.decode())

    def test_colours_without_a_terminal_only_when_they_are_forced(self):
        for env, coloured in (({}, False), ({"CLICOLOR_FORCE": "1"}, True), ({"CLICOLOR_FORCE": "0"}, False),
                              ({"CLICOLOR_FORCE": "1", "NO_COLOR": ""}, False)):
            plain = {name: value for name, value in os.environ.items() if name not in ("CLICOLOR_FORCE", "NO_COLOR")}
            shown = subprocess.run(self.node.ctl_command("nodes"), env=plain | env, stdin=subprocess.DEVNULL,
                                   capture_output=True, check=True, timeout=60).stdout
            self.assertEqual(b"\x1b[32mup" in shown, coloured, env)

    def test_each_refusal_says_what_to_do(self):
        self.assertIn("n2 joins (generation 2)", self.join("n2"))
        at = ("--host", "127.0.0.1", "--port")
        self.refused(1, "already_member: n2 is a member already; --replace", "node", "join", "n2", *at, "7000")
        self.refused(1, "conflict: 127.0.0.1:7000 is the address of n2", "node", "join", "n3", *at, "7000")
        self.refused(1, "not_found: there is no member n3", "node", "join", "n3", *at, "7100", "--replace")
        self.refused(3, "no such group", "node", "join", "n3", *at, "7100", "--group", "none")
        self.refused(3, "this is no id", "node", "join", "n 3", *at, "7100")
        self.refused(3, "this is no host", "node", "join", "n3", "--host", "a b", "--port", "7100")
        self.refused(3, "ask another member", "node", "join", "n1", "--replace")
        self.refused(2, "--host and --port say where n3 listens", "node", "join", "n3")
        self.refused(2, "--port must be between 1 and 65531", "node", "join", "n3", *at, "65532")
        self.refused(2, "missing: ID", "node", "join")
        self.refused(2, "missing: ID", "node", "leave")
        self.refused(1, "not_member: n9 is not a member; `shanghaictl nodes`", "node", "leave", "n9")
        for far in (("node", "join", "n3", *at, "7100"), ("node", "leave", "n2")):
            self.refused(3, "forbidden: only for clients on the node itself, by ipc; run this on a member's own host",
                         *far, endpoint=self.node.tcp)
        self.assertIn("n2 has left", self.node.ctl("node", "leave", "n2").stdout.decode())
        self.refused(1, "not_member: n2 has left already", "node", "leave", "n2")
        self.refused(1, "conflict: n1 is the last member; to stop it", "node", "leave", "n1")
        status = {node["id"]: node["status"] for node in self.node.json("nodes")["nodes"]}
        self.assertEqual(status, {"n1": "up", "n2": "left"})

    def test_answers_as_json(self):
        done = self.node.json("node", "join", "n2", "--host", "127.0.0.1", "--port", "7000")
        self.assertEqual(done, {"id": "n2", "generation": 2})
        done = self.node.ctl("--format", "json", "node", "leave", "n9", check=False)
        self.assertEqual((done.returncode, json.loads(done.stderr)["error"]), (1, "not_member"))
        self.assertEqual(self.node.json("node", "leave", "n2"),
                         {"id": "n2", "generation": 2, "log": None, "only_first": None, "only_last": None})

    def test_while_membersvc_is_away_only_it_is_missing(self):
        self.node.stop_service("membersvc")
        wait_for(lambda: self.node.json("status")["nodes"] is None, "membersvc to be away")
        for command in (("nodes",), ("node", "leave", "n2"), ("events",)):
            self.refused(3, "unavailable: membersvc does not answer; `shanghaictl svc tree` shows why", *command)
        status = self.node.json("status")
        self.assertEqual((status["health"], status["writable"]), ("degraded", True))
        self.node.ctl("svc", "start", "membersvc")
        wait_for(lambda: self.node.json("status")["health"] == "healthy", "a healthy cluster")

    def events(self, *args):
        return [json.loads(line) for line in self.node.ctl("--format", "json", "events", *args).stdout.splitlines()]

    def follow(self, *args):
        command = self.node.ctl_command("--format", "json", "events", "-f", *args)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_events_from_a_number_and_so_many(self):
        self.assertEqual([event["event"] for event in self.events()], ["founded"])
        for i in range(2, 6):
            self.join(f"n{i}", 7000 + 10 * i)
        seen = self.events()
        self.assertEqual([event["number"] for event in seen], list(range(1, 6)))
        self.assertEqual(self.events("--from", "3", "--count", "2"), seen[2:4])
        self.assertEqual(self.events("--from", "6"), [])
        lines = self.node.ctl("events").stdout.decode().splitlines()
        self.assertEqual(len(lines), 5)
        self.assertEqual(lines[1].split()[3:], ["n2", "joining"])

    def test_who_follows_gets_each_once_over_kills_and_ends_at_once(self):
        follower = self.follow()
        seen = [json.loads(follower.stdout.readline())]
        for i in range(2, 8):
            self.join(f"n{i}", 7000 + 10 * i)
            seen.append(json.loads(follower.stdout.readline()))
            service = ("membersvc", "querysvc")[i % 2]
            old = self.node.kill(service)
            wait_for(lambda old=old, service=service: self.node.pid(service) != old, "another one")
            wait_for(lambda: self.node.ctl("nodes", check=False).returncode == 0, "membersvc to answer")
        self.assertEqual([event["number"] for event in seen], list(range(1, 8)))
        self.assertEqual(len({event["series"] for event in seen}), 1)
        follower.send_signal(signal.SIGINT)
        self.assertEqual(follower.wait(60), -signal.SIGINT)

    def test_who_follows_ends_when_nobody_reads(self):
        follower = self.follow()
        follower.stdout.readline()
        follower.stdout.close()
        self.assertEqual(follower.wait(60), 3)

    def test_events_that_are_counted_anew_are_told(self):
        follower = self.follow("--count", "2")
        follower.stdout.readline()
        self.node.stop_service("membersvc")
        os.unlink(os.path.join(self.node.data, "member"))
        self.node.ctl("svc", "start", "membersvc")
        event = json.loads(follower.stdout.readline())
        self.assertEqual((event["number"], event["event"]), (1, "founded"))
        self.assertEqual(follower.wait(60), 1)


class Three(unittest.TestCase):
    """Three nodes of one topology file, on loopback."""

    def setUp(self):
        self.cluster = Cluster(3, TIMES)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def health(self, name):
        return (self.cluster[name].try_json("status") or {}).get("health")

    def test_a_killed_node_degrades_the_cluster_until_it_is_back(self):
        node = self.cluster["n1"]
        self.cluster["n3"].kill_all()
        wait_for(lambda: node.json("status")["reasons"] == ["n3 is down"], "n3 down")
        text = node.ctl("status").stdout.decode().splitlines()
        self.assertEqual([line.split()[:2] for line in text if line.startswith("n3")], [["n3", "down"]])
        self.cluster["n3"].start()
        self.cluster.wait_healthy()

    def test_each_node_has_the_log_of_each_other_also_when_that_is_down(self):
        nodes = self.cluster.nodes
        for name, node in nodes.items():
            node.ctl("append", f"one of {name}", f"two of {name}")

        def copied(node):
            replicas = node.json("replicas")
            rows = replicas["followed"] + replicas["followers"]
            return [(row["state"], row["lsn"], row["lag_entries"]) for row in rows] == [("streaming", 2, 0)] * 4
        wait_for(lambda: all(map(copied, nodes.values())), "all copies", 30, 0.1)
        wanted = [["n1", "n2", "-", "streaming"], ["n1", "n3", "-", "streaming"],
                  ["n2", "n1", "n2", "streaming"], ["n3", "n1", "n3", "streaming"]]
        wait_for(lambda: sorted(line.split()[:4] for line in nodes["n1"].ctl("replicas").stdout.decode().splitlines()[2:]) ==
                 wanted, "the table")  # who is held up for a second is disconnected, or copied from another one, for a while
        nodes["n3"].kill_all()
        for name in ("n1", "n2"):
            for of in nodes:
                done = nodes[name].ctl("read", "--node", of, "--format", "raw")
                self.assertEqual(done.stdout.decode(), f"one of {of}\ntwo of {of}\n")

    def test_who_follows_a_copy_sees_what_comes(self):
        first, second = self.cluster["n1"], self.cluster["n2"]
        second.ctl("append", "first")
        wait_for(lambda: first.ctl("read", "--node", "n2", check=False).stdout, "the copy")
        follower = subprocess.Popen(first.ctl_command("tail", "-f", "--node", "n2", "--format", "raw"),
                                    stdout=subprocess.PIPE)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        self.assertEqual(follower.stdout.readline(), b"first\n")
        second.ctl("append", "second")
        self.assertEqual(follower.stdout.readline(), b"second\n")

    def test_who_leaves_is_unavailable_and_its_only_entries_are_named(self):
        first, last = self.cluster["n1"], self.cluster["n3"]
        last.stop_service("replsvc")  # or the others would have them
        last.ctl("append", "a", "b")

        def told():
            row = self.cluster.rows("n1").get("n3")
            return row and [mark["lsn"] for mark in row["watermarks"] if mark["log"] == row["log"]] == [2]
        wait_for(told, "the watermark of n3")
        self.assertIn("LSN 1 to 2 of its log", first.ctl("node", "leave", "n3").stdout.decode())
        wait_for(lambda: self.health("n3") == "unavailable", "n3 to notice")
        wait_for(lambda: self.health("n1") == "healthy", "the rest to be healthy")
        done = last.ctl("node", "leave", "n1", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not a member any more", done.stderr.decode())
        self.assertIn("n3 is left: ", last.ctl("nodes").stdout.decode())
        last.ctl("svc", "start", "replsvc")
        self.cluster["n2"].ctl("node", "join", "n3", "--host", last.host, "--port", str(last.port))
        self.cluster.wait_healthy()


if __name__ == "__main__":
    unittest.main()
