"""What daemons count and tell: every metric that is declared, on a cluster that does a little of everything; what it
says of followers that are away, and of damage; the events beside."""
import os
import unittest

from caller import Caller
from cluster import Cluster
from metrics import declared, events_of, metrics_of
from shanghai import Node, wait_for

ERROR, APPEND = 3, 16
ENTRIES = 30000
SMALL = "wal: {segment_size: 1MiB, scrub_interval: 1s, scrub_rate: 1GiB, retention_bytes: 0}"

# Gathered by obssvc itself: as long as it does not tell any of them, none is expected.
# Beyond what was done: nothing has failed, nothing is damaged, no disk was slow.
MAY_BE_ZERO = {"shanghai_wal_queue_bytes", "shanghai_wal_scrubs_total", "shanghai_wal_damaged_entries",
               "shanghai_wal_scrub_position_bytes",
               "shanghai_wal_disk_reserve_bytes", "shanghai_replication_retries_total",
               "shanghai_replication_credit_exhausted_total", "shanghai_replication_lag_entries",
               "shanghai_replication_lag_bytes", "shanghai_replication_lag_seconds", "shanghai_query_view_lag_entries",
               "shanghai_member_clock_offset_seconds"}


def lines(count):
    return b"".join(b"%0100d\n" % number for number in range(count))


def wait_until_empty(look, what):
    """Says what was left at the end."""
    last = []

    def is_empty():
        last[:] = look()
        return not last
    try:
        wait_for(is_empty, what, pause=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}: {sorted(last)}") from None


def log_of(node):
    return node.json("status")["log"]


class Counted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().start()
        cls.addClassCleanup(cls.cluster.close)
        for node in cls.cluster.nodes.values():
            cls.work(node)

    @classmethod
    def work(cls, node):
        node.ctl("append", "--stream", "s", "one", "two")
        node.ctl("append", "by querysvc", endpoint=node.tcp)
        for level in ("quorum", "all"):
            wait_for(lambda level=level: node.ctl("append", "--ack", level, "x", check=False).returncode == 0,
                     f"an append with {level}")
        node.ctl("read", "--count", "2")
        node.ctl("stream", "list")
        node.ctl("kv", "put", "key", "value")
        node.ctl("kv", "get", "key")
        wait_for(lambda: node.ctl("kv", "scan", "key").stdout, "the key in a scan")
        node.ctl("log", "trim", "--before", "1", endpoint=node.tcp, check=False)  # not from there
        node.kill("replsvc")  # a death is told

    def wait_value(self, node, expected, name, **labels):
        """expected: a number, or a condition."""
        is_good = expected if callable(expected) else lambda value: value == expected
        last = []

        def look():
            last[:] = [metrics_of(node).value(name, **labels)]
            return last[0] is not None and is_good(last[0])
        try:
            wait_for(look, f"{name} {labels} of {node.name}", pause=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last[0]}") from None

    def test_every_declared_metric_is_told_with_its_kind(self):
        expected = declared()

        def lacking(node):
            kinds = metrics_of(node).kinds
            missing = {name: kind for name, (kind, _) in expected.items() if kinds.get(name) != kind}
            return missing.keys()
        for node in self.cluster.nodes.values():
            wait_until_empty(lambda node=node: lacking(node), f"all metrics of {node.name}")
            self.assertLessEqual(metrics_of(node).kinds.keys(), expected.keys())

    def test_what_a_little_work_moves_has_moved(self):
        node = self.cluster["n1"]
        wal = Caller(self, f"{node.run}/wal.in", f"{node.run}/wal.out")
        kind, _ = wal.ask(APPEND, {1: bytes(16), 2: 0, 3: 0, 4: 0, 5: 0, 6: []})
        self.assertEqual(kind, ERROR)

        client = Caller(self, f"{node.run}/query.in", f"{node.run}/query.out")

        def zeros():
            client.poll()  # and so stays connected
            metrics = metrics_of(node)
            return [name for name, (kind, service) in declared().items()
                    if name not in MAY_BE_ZERO and service != "obssvc"
                    and not metrics.value(name[9:] + ("_count" if kind == "histogram" else ""))]
        wait_until_empty(zeros, "all that should have moved")
        for level in ("local", "quorum", "all"):
            self.wait_value(node, lambda count: count > 0, "wal_append_seconds_count", ack=level)
        for kind in ("append", "read", "get", "scan", "stream", "other"):
            self.wait_value(node, lambda count: count > 0, "query_requests_total", kind=kind)

    def test_entries_and_bytes_are_those_of_the_log(self):
        node, other = self.cluster["n2"], self.cluster["n3"]
        log = log_of(node)
        node.ctl("append", "--batch", "100", "-", input=lines(1000))
        status = node.json("status")
        self.assertEqual(status["log"], log)
        self.wait_value(node, status["durable_lsn"], "wal_entries_total")
        self.wait_value(node, status["durable_lsn"], "wal_durable_lsn", log=log)
        self.wait_value(other, status["durable_lsn"], "wal_durable_lsn", log=log)
        self.wait_value(node, 1, "wal_segments", log=log)

        def same_bytes():
            has = [metrics_of(n).value("wal_log_bytes", log=log) for n in (node, other)]
            return has[0] is not None and has[0] > 100 * 1000 and has[0] == has[1]
        wait_for(same_bytes, "as many bytes in the copy as in the log", pause=0.1)
        self.wait_value(node, lambda frames: frames == metrics_of(node).value("wal_frames_total"),
                        "wal_commit_group_frames_sum")

    def test_scanned_and_got_keys_are_counted(self):
        node = self.cluster["n3"]
        node.ctl("kv", "put", "counted/a", "1")
        node.ctl("kv", "put", "counted/b", "2")
        wait_for(lambda: node.ctl("kv", "scan", "counted/").stdout.count(b"\n") == 2, "both keys")
        before = wait_for(lambda: metrics_of(node).value("query_keys_total", kind="scanned"), "keys that were scanned")
        got = metrics_of(node).value("query_keys_total", kind="got")
        node.ctl("kv", "scan", "counted/")
        node.ctl("kv", "get", "counted/a", "counted/b", "counted/c", check=False)
        self.wait_value(node, lambda count: count >= before + 2, "query_keys_total", kind="scanned")
        self.wait_value(node, lambda count: count >= got + 3, "query_keys_total", kind="got")


class Away(unittest.TestCase):
    wait_value = Counted.wait_value

    def test_a_follower_that_is_away_lags_until_it_is_back(self):
        with Cluster() as cluster:
            cluster.start()
            node = cluster["n1"]
            self.wait_value(node, 0, "replication_lag_entries", follower="n3")
            cluster["n3"].stop()
            self.wait_value(node, 1, "member_nodes", status="down")
            self.wait_value(node, 0, "member_up", member="n3")
            node.ctl("append", *"abcde")
            self.wait_value(node, 5, "replication_lag_entries", follower="n3")
            self.wait_value(node, lambda lag: lag > 100, "replication_lag_bytes", follower="n3")
            self.wait_value(node, lambda lag: lag > 2, "replication_lag_seconds", follower="n3")
            self.wait_value(node, 0, "replication_lag_entries", follower="n2")
            self.wait_value(node, lambda count: count > 0, "replication_retries_total")
            cluster["n3"].start()
            for name in ("entries", "bytes", "seconds"):
                self.wait_value(node, 0, f"replication_lag_{name}", follower="n3")
            self.wait_value(node, 3, "member_nodes", status="up")
            self.wait_value(node, 1, "member_up", member="n3")


class Damaged(unittest.TestCase):
    wait_value = Counted.wait_value

    def test_damage_is_found_told_and_accepted(self):
        with Node(settings=SMALL) as node:
            node.start()
            node.ctl("append", "--batch", "1000", "-", input=lines(ENTRIES))
            names = sorted(name for name in os.listdir(node.log_dir()) if name.endswith(".seg"))
            self.wait_value(node, len(names), "wal_segments", log=log_of(node))
            self.wait_value(node, 0, "wal_damaged_entries")
            self.wait_value(node, lambda count: count > 0, "wal_scrubs_total")
            with open(os.path.join(node.log_dir(), names[1]), "r+b") as file:
                file.seek(500000)
                file.write(bytes(16))
            self.wait_value(node, lambda count: count > 0, "wal_damaged_entries")
            damage = wait_for(lambda: node.json("log", "info")["damages"], "damage in log info")[0]
            self.wait_value(node, damage["next_lsn"] - damage["first_lsn"], "wal_damaged_entries")
            node.ctl("log", "accept-loss", "--yes", str(damage["first_lsn"]), str(damage["next_lsn"] - 1))
            self.wait_value(node, 0, "wal_damaged_entries")
            node.ctl("log", "trim", "--before", str(ENTRIES), check=False)
            left = sum(name.endswith(".seg") for name in os.listdir(node.log_dir()))
            self.assertLess(left, len(names))
            self.wait_value(node, left, "wal_segments")
            self.check_events(node, {"segment_sealed", "damage_found", "loss_accepted", "segments_trimmed", "log_scrubbed"})

    def check_events(self, node, kinds):
        wait_for(lambda: kinds <= set(events_of(node) or ()), f"events {kinds}", pause=0.1)


if __name__ == "__main__":
    unittest.main()
