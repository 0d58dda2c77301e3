"""Two replication groups of three nodes each in one cluster: what is about a key or a stream happens in its group only,
whichever node is asked."""
import json
import os
import time
import unittest
import zlib

from caller import Caller
from cluster import Cluster
from shanghai import wait_for

# Who is suspect is asked last, and does not know yet what another one has just taken.
TIMES = "member: {heartbeat_interval: 500ms, suspect_after: 6s, down_after: 8s}"
SETTINGS = TIMES + "\nquery: {view: true, cache_bytes: 1MiB, write_buffer_bytes: 1MiB}\nwal: {segment_size: 1MiB}"
GROUPS = {"a": ("n1", "n2", "n3"), "b": ("n4", "n5", "n6")}
ERROR, APPEND, APPEND_REPLY, KV_GET, KV_GET_REPLY, GROUP_OF, GROUP_OF_REPLY = 3, 16, 17, 128, 129, 162, 163
BAD_REQUEST, WRONG_GROUP, NOT_FOUND, TIMEOUT = 1, 7, 8, 11
NOBODY = bytes(range(1, 17))


class Groups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(6, settings=SETTINGS, groups=[group for group, names in GROUPS.items() for _ in names]).start()
        cls.logs = {name: node.json("status")["log"] for name, node in cls.cluster.nodes.items()}
        cls.group_of_log = {cls.logs[name]: group for group, names in GROUPS.items() for name in names}

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def setUp(self):
        self.file = os.path.join(self.cluster["n1"].dir, self.id())
        self.prefix = f"k{zlib.crc32(self.id().encode())}"

    def endpoints(self):
        """(name, endpoint): each node, some by ipc, some by tcp, the first one by both."""
        for i, (name, node) in enumerate(self.cluster.nodes.items()):
            yield name, node.tcp if i % 2 else node.endpoint
        yield "n1", self.cluster["n1"].tcp

    def group(self, name, *args):
        return self.cluster["n1"].json("group", "of", *args, name)["group"]

    def names(self, group, count, *args):
        """Keys, or streams, of this test that belong to that group."""
        found = []
        for i in range(1000):
            name = f"{self.prefix}/{i}"
            if len(found) < count and self.group(name, *args) == group:
                found.append(name)
            if len(found) == count:
                return found
        raise AssertionError("half of all names should belong to each")

    def refused(self, node, error, *args, **options):
        """The message."""
        done = node.ctl("--format", "json", *args, check=False, **options)
        self.assertEqual(done.returncode, 3, done)
        said = json.loads(done.stderr)
        self.assertEqual(said["error"], error, said)
        return said["text"]

    def caller(self, name, link="query"):
        run = self.cluster[name].run
        return Caller(self, f"{run}/{link}.in", f"{run}/{link}.out")

    def append(self, caller, *entries):
        return caller.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: list(entries)})

    def tcp_of(self, group):
        return {self.cluster[name].tcp for name in GROUPS[group]}

    # ------------------------------------------------------------ where things land

    def test_from_every_endpoint_all_lands_in_the_logs_of_its_group(self):
        keys = {group: self.names(group, 2) for group in GROUPS}
        streams = {group: self.names(group, 1, "--stream") for group in GROUPS}
        asked = 0
        for name, endpoint in self.endpoints():
            node = self.cluster[name]
            for group in GROUPS:
                first, second = keys[group]
                here = {"endpoint": endpoint}
                txn = f"put {first} {name}\nincr {second} 2\ndel {second}\n".encode()
                landed = [node.json("kv", "incr", "--session", self.file, first, **here),
                          node.json("kv", "txn", "--session", self.file, input=txn, **here),
                          node.json("append", "--stream", streams[group][0], f"{asked}", **here)["last"]]
                self.assertEqual([self.group_of_log[one["log"]] for one in landed], [group] * 3, endpoint)
                asked += 1
        for name, endpoint in self.endpoints():
            rows = self.cluster[name].json("kv", "get", "--session", self.file, *keys["a"], *keys["b"], endpoint=endpoint)
            got = [(row["key"], row.get("value"), row.get("counter")) for row in rows]
            self.assertEqual(got, [(keys["a"][0], "n1", 7), (keys["a"][1], None, 14), (keys["b"][0], "n1", 7),
                                   (keys["b"][1], None, 14)], endpoint)
        found = {group: set() for group in GROUPS}
        for name, node in self.cluster.nodes.items():
            group = self.group_of_log[self.logs[name]]
            entries = map(json.loads, node.ctl("--format", "json", "read").stdout.splitlines())
            seen = {entry.get("key") or entry.get("stream", "") for entry in entries}
            mine = {one for one in seen if one.startswith(self.prefix)}
            self.assertLessEqual(mine, {*keys[group], *streams[group]}, name)
            found[group] |= mine
        self.assertEqual(found, {group: {*keys[group], *streams[group]} for group in GROUPS})

    def test_a_direct_append_and_one_by_querysvc_are_redirected_alike(self):
        key, = self.names("b", 1)
        node = self.cluster["n1"]
        near, = self.names("a", 1)
        for endpoint in (node.endpoint, node.tcp):
            self.assertEqual(node.json("kv", "put", near, "v", endpoint=endpoint)["log"], self.logs["n1"])
        before = node.json("status")["durable_lsn"]
        for endpoint in (node.endpoint, node.tcp):
            self.assertEqual(self.group_of_log[node.json("kv", "put", key, "v", endpoint=endpoint)["log"]], "b")
        self.assertEqual(node.json("status")["durable_lsn"], before)

    def test_the_empty_stream_stays_with_the_node(self):
        for node in self.cluster.nodes.values():
            self.assertEqual(node.json("append", "plain")["last"]["log"], self.logs[node.name])

    def test_what_belongs_to_two_groups_is_refused_by_the_library(self):
        one, other = self.names("a", 1) + self.names("b", 1)
        for node in (self.cluster["n1"], self.cluster["n5"]):
            text = self.refused(node, "bad_request", "kv", "txn", input=f"put {one} 1\nput {other} 2\n".encode())
            self.assertEqual(text, f"the keys belong to two groups: key `{one}` to `a`, key `{other}` to `b`")
            text = self.refused(node, "bad_request", "kv", "del", other, one)
            self.assertIn("two groups", text)
        rows = self.cluster["n1"].json("kv", "scan", self.prefix)
        self.assertEqual(rows, [])

    def test_conditions_are_checked_by_the_group_of_what_they_name(self):
        (near, other), (far,) = self.names("a", 2), self.names("b", 1)
        stream, = self.names("b", 1, "--stream")
        node = self.cluster["n1"]
        for endpoint in (node.endpoint, node.tcp):
            for key, group in ((near, "a"), (far, "b")):
                done = node.json("kv", "put", "--session", self.file, "--if-absent", f"{key}", "v", endpoint=endpoint)
                self.assertEqual(self.group_of_log[done["log"]], group)
                again = node.ctl("--format", "json", "kv", "put", "--if-absent", key, "v", check=False, endpoint=endpoint)
                self.assertEqual((again.returncode, json.loads(again.stderr)["current"]["lsn"]), (1, done["lsn"]))
                node.ctl("kv", "del", "--session", self.file, "--if-version", f"{done['log']}:{done['lsn']}", key)
            at = node.json("append", "--stream", stream, "--if-last", "none" if endpoint == node.endpoint else at, "x",
                           endpoint=endpoint)["last"]
            self.assertEqual(self.group_of_log[at["log"]], "b")
            at = f"{at['log']}:{at['lsn']}"
            text = self.refused(node, "bad_request", "kv", "txn", input=f"if {far} absent\nput {other} v\n".encode(),
                                endpoint=endpoint)
            self.assertIn("another group", text)
        self.assertEqual(node.ctl("kv", "get", other, check=False).returncode, 1, "nothing was appended")

    def test_scans_are_of_the_group_of_the_node_that_is_asked(self):
        keys = {group: self.names(group, 3) for group in GROUPS}
        for key in keys["a"] + keys["b"]:
            self.cluster["n1"].json("kv", "put", "--session", self.file, key, "v")
        for group, names in GROUPS.items():
            for name in names:
                rows = self.cluster[name].json("kv", "scan", "--session", self.file, self.prefix)
                self.assertEqual([row["key"] for row in rows], sorted(keys[group]))

    def test_a_cursor_lives_in_the_group_of_the_node_that_is_asked(self):
        """The session goes through both groups, and no node waits for logs of the other one."""
        def cursor(node, verb, *args):
            return self.cluster[node].json("cursor", verb, "--session", self.file, *args)
        name, place = self.prefix, f"{self.logs['n5']}:1"
        epochs = [cursor(node, "take", name)["epoch"] for node in ("n1", "n4", "n2", "n5", "n6", "n3")]
        self.assertEqual(epochs, [1, 1, 2, 2, 3, 3])
        cursor("n1", "set", "--force", name, place)
        self.assertEqual([row["epoch"] for row in cursor("n2", "list", name)], [4])
        self.assertEqual([row["epoch"] for row in cursor("n4", "list", name)], [3])
        shown = {log["log"]: log.get("durable_lsn") for log in cursor("n3", "show", name)["logs"]}
        self.assertEqual({log for log, lsn in shown.items() if lsn is None}, {self.logs["n5"]}, shown)

    # ------------------------------------------------------------ what nodes answer

    def test_every_node_says_where_a_name_belongs(self):
        for name, node in self.cluster.nodes.items():
            for args, group in ((("user/1",), "b"), (("user/2",), "a"), (("--stream", "orders"), "b"), (("orders",), "a")):
                said = node.json("group", "of", *args)
                self.assertEqual((said["group"], said["here"]), (group, name in GROUPS[group]))
                self.assertEqual(set(said["endpoints"]), self.tcp_of(group))
        text = self.cluster["n1"].ctl("group", "of", "user/1").stdout.decode()
        self.assertIn("group", text)
        self.assertIn(self.cluster["n4"].tcp, text)
        caller = self.caller("n1")
        self.assertEqual(caller.ask(GROUP_OF, {})[1][1], BAD_REQUEST)
        self.assertEqual(caller.ask(GROUP_OF, {3: "c"})[1][1], NOT_FOUND)
        kind, reply = caller.ask(GROUP_OF, {3: "b"})
        self.assertEqual((kind, reply[1], reply[2]), (GROUP_OF_REPLY, "b", False))

    def test_a_node_refuses_what_is_of_another_group_and_says_where_that_is(self):
        caller, direct = self.caller("n1"), self.caller("n1", "wal")
        put, event = [1, b"user/1", b"v"], [0, "orders", b"v"]
        answers = [caller.ask(KV_GET, {1: [b"user/2", b"user/1"]}), self.append(caller, put), self.append(caller, event),
                   self.append(caller, [2, b"user/1"]), self.append(caller, [3, b"user/1", 1])]
        for kind, error in answers:
            self.assertEqual((kind, error[1], error[5]), (ERROR, WRONG_GROUP, "b"))
            self.assertEqual(set(error[6]), self.tcp_of("b"))
        kind, error = self.append(direct, put)
        self.assertEqual((kind, error[1], error[2], error[5]),
                         (ERROR, WRONG_GROUP, "key `user/1` belongs to group `b`; nothing was appended", "b"))
        for link in (caller, direct):
            kind, error = self.append(link, [1, b"user/2", b"v"], put)
            self.assertEqual((kind, error[1]), (ERROR, BAD_REQUEST))
            self.assertEqual(error[2], "the keys belong to two groups: key `user/2` to `a`, key `user/1` to `b`")
            kind, reply = self.append(link, [1, b"user/2", b"v"], [0, "", b"v"])
            self.assertEqual(kind, APPEND_REPLY, reply)

    def test_a_session_waits_for_no_log_that_the_node_will_never_hold(self):
        caller = self.caller("n1")
        log = bytes.fromhex(self.logs["n4"].replace("-", ""))
        own = bytes.fromhex(self.logs["n2"].replace("-", ""))
        kind, reply = caller.ask(KV_GET, {1: [b"user/2"], 2: [[log, 10**9]], 3: 0})
        self.assertEqual(kind, KV_GET_REPLY, reply)
        for waited in (own, NOBODY):  # of a log that nobody knows it cannot be said that it never comes
            kind, error = caller.ask(KV_GET, {1: [b"user/2"], 2: [[log, 10**9], [waited, 10**9]], 3: 100})
            self.assertEqual((kind, error[1]), (ERROR, TIMEOUT))
            self.assertIn("-".join((waited.hex()[:8], waited.hex()[8:12])), error[2])

    def wait_replicas(self, name, which, key, others):
        """Those of a node that was away take a moment; nobody else is ever among them."""
        def are_all():
            found = {row[key] for row in self.cluster[name].json("replicas")[which]}
            self.assertLessEqual(found, others)
            return found == others
        wait_for(are_all, f"{which} of {name} to be {others}", pause=0.05)

    def test_nodes_follow_the_logs_of_their_group_and_no_others(self):
        for group, names in GROUPS.items():
            for name in names:
                others = set(names) - {name}
                self.wait_replicas(name, "followed", "origin", others)
                self.wait_replicas(name, "followers", "follower", others)
                held = {entry for entry in os.listdir(os.path.join(self.cluster[name].data, "log")) if len(entry) == 36}
                self.assertEqual(held, {self.logs[one] for one in names})
                self.assertEqual({one: row["group"] for one, row in self.cluster.rows(name).items()},
                                 {one: own for own, all_of in GROUPS.items() for one in all_of})
        self.assertEqual(self.cluster["n1"].json("append", "--ack", "all", "--ack-timeout", "60s", "x")["ack"], "all")
        self.assertIn("not_found", self.cluster["n1"].ctl("read", "--node", "n4", check=False).stderr.decode())

    # ------------------------------------------------------------ nodes that are away

    def kill(self, *names):
        for name in names:
            self.cluster[name].kill_all()

    def restart(self, *names):
        for name in names:
            self.cluster[name].spawn()
        for name in names:
            self.cluster[name].wait_ready()
        self.cluster.wait_healthy()

    def test_the_other_nodes_of_a_group_take_over(self):
        key, = self.names("b", 1)
        first = self.cluster["n1"].json("group", "of", key)["endpoints"][0]
        away = next(name for name in GROUPS["b"] if self.cluster[name].tcp == first)
        self.kill(away)
        self.assertEqual(self.group_of_log[self.cluster["n1"].json("kv", "put", key, "v")["log"]], "b")

        def is_last():
            return self.cluster["n1"].json("group", "of", key)["endpoints"][-1] == first
        wait_for(is_last, "the node that is down to come last")
        near, = self.names("a", 1)
        for key, group in ((key, "b"), (near, "a")):  # by an endpoint that is down, then by one of the other group
            done = self.cluster["n1"].json("kv", "put", key, "v", endpoint=f"{first},{self.cluster['n1'].tcp}")
            self.assertEqual(self.group_of_log[done["log"]], group)
        self.restart(away)

    def test_a_group_that_is_away_is_named_in_time_and_the_other_goes_on(self):
        far, near = self.names("b", 1) + self.names("a", 1)
        node = self.cluster["n1"]
        self.kill(*GROUPS["b"])
        begin = time.monotonic()
        text = self.refused(node, "timeout", "--timeout", "8s", "kv", "put", far, "v")
        self.assertIn("no node of group `b` can be reached", text)
        text = self.refused(node, "unavailable", "--timeout", "8s", "kv", "get", near, far)
        self.assertIn("no node of group `b` can be reached", text)
        self.assertLess(time.monotonic() - begin, 50, "without --timeout it would be 60 s")
        node.json("kv", "put", "--session", self.file, near, "on")
        for name in GROUPS["a"]:
            self.assertEqual(self.cluster[name].json("kv", "get", "--session", self.file, near)[0]["value"], "on")
        self.cluster["n5"].start()
        self.assertEqual(node.json("kv", "put", far, "back")["log"], self.logs["n5"])
        self.restart("n4", "n6")


if __name__ == "__main__":
    unittest.main()
