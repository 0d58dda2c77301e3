"""Three nodes, each of which takes writes: all have everything, byte for byte."""
import os
import random
import signal
import subprocess
import time
import unittest

from cluster import TIMES, Cluster
from logs import Appender, digest, log_of, read_lines, segments, wait_equal, wait_lines
from shanghai import BIN, wait_for

LONG = bool(os.environ.get("SHANGHAI_LONG"))
SMALL = "wal: {segment_size: 1MiB, disk_reserve: 1MiB}\nmember: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}"

PATIENT = ("supervisor: {intensity: 1000, period: 60s, backoff: false, children: [{service: walsvc, watchdog: 5m}, "
           "{service: membersvc}, {service: replsvc, watchdog: 5m}, {service: querysvc}]}")
STOPPED_S = 60 if LONG else 5
GROWTH_MAX_KIB = (200 if "asan" in BIN or "tsan" in BIN else 8) << 10
MUCH_BYTES = (5 << 30) if LONG else (64 << 20)
LINE_BYTES = 1024
IN_TIME = ("--ack-timeout", "60s")  # of what must be reached, however busy the machine is


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def append_much(node, size):
    line = "x" * (LINE_BYTES - 1)
    with subprocess.Popen(["sh", "-c", f"yes {line} | head -c {size}"], stdout=subprocess.PIPE) as lines:
        node.ctl("append", "--batch", "500", "-", stdin=lines.stdout, timeout=1200)


class Replication(unittest.TestCase):
    def test_every_node_writes_and_every_node_has_everything(self):
        with Cluster(settings=SMALL).start() as cluster:
            appenders = [Appender(node, 50000, "--ack", "quorum", *IN_TIME) for node in cluster.nodes.values()]
            for appender in appenders:
                appender.start()
            for appender in appenders:
                self.assertEqual(appender.summary()["entries"], 50000)
            logs = wait_equal(cluster)
            self.assertEqual(sorted(logs.values()), [50000] * 3)
            for node in cluster.nodes.values():
                self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)
                for appender, origin in zip(appenders, cluster.nodes):
                    uuid = log_of(cluster, origin)
                    self.assertGreater(len(segments(node, uuid)), 1, "several segments, or nothing was sealed")
                    wait_lines(node, uuid, appender.lines)

    def append_one(self, node, ack):
        """The level that was reached."""
        self.appended += 1
        return node.json("append", "--ack", ack, *IN_TIME, "x")["ack"]

    def miss(self, node, ack):
        """What is said of one that doesn't get so far."""
        self.appended += 1
        done = node.ctl("append", "--ack", ack, "--ack-timeout", "500ms", "x", check=False)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_a_quorum_needs_a_majority(self):
        self.appended = 0
        with Cluster(settings=SMALL).start() as cluster:
            n1 = cluster["n1"]
            self.assertIn(self.append_one(n1, "quorum"), ("quorum", "all"))
            self.assertEqual(self.append_one(n1, "all"), "all")
            cluster["n3"].kill_all()
            self.assertEqual(self.append_one(n1, "quorum"), "quorum")
            wait_for(lambda: b"`quorum` was reached" in self.miss(n1, "all"), "one that gets to n2 in time")
            cluster["n2"].kill_all()
            self.assertIn(b"durable on this node, `local` was reached", self.miss(n1, "quorum"))
            n1.wait_durable(self.appended)  # all are durable here
            for name in ("n2", "n3"):
                cluster[name].start()
            wait_equal(cluster)
            self.assertEqual(self.append_one(n1, "all"), "all")

    def test_a_dead_nodes_entries_reach_those_who_lack_them(self):
        with Cluster(settings=SMALL).start() as cluster:
            uuid = log_of(cluster, "n1")
            cluster["n3"].kill_all()
            appender = Appender(cluster["n1"], 3000, "--ack", "quorum", *IN_TIME) # n2 has them
            appender.start()
            appender.summary()
            cluster["n1"].kill_all()
            cluster["n3"].start()
            wait_for(lambda: read_lines(cluster["n3"], uuid) == appender.lines, "n1's entries at n3, from n2", 60, 0.5)
            cluster["n1"].start()
            wait_equal(cluster)

    def test_kills_of_any_daemon_lose_nothing(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        chance = random.Random(seed)
        count = 400000 if LONG else 60000
        with Cluster(settings=SMALL).start() as cluster:
            appenders = [Appender(node, count, "--ack", "quorum", *IN_TIME) for node in cluster.nodes.values()]
            for appender in appenders:
                appender.start()
            kills = 0
            while any(appender.is_alive() for appender in appenders) or kills < 10:
                node = cluster[chance.choice(list(cluster.nodes))]
                node.kill(chance.choice(["walsvc", "replsvc", "membersvc", "querysvc"]))
                kills += 1
                time.sleep(0.3)
            for appender in appenders:
                self.assertEqual(appender.summary()["entries"], count)
            wait_equal(cluster)
            for appender, name in zip(appenders, cluster.nodes):
                wait_lines(cluster["n2"], log_of(cluster, name), appender.lines)
            print(f"count: daemons of a cluster killed {kills}", flush=True)

    def check_while_stopped(self, source):
        """The source's daemons don't grow, and take appends as before."""
        pids = {name: source.pid(name) for name in ("replsvc", "walsvc", "querysvc")}
        before_kib = {name: anonymous_kib(pid) for name, pid in pids.items()}
        most_kib = dict(before_kib)
        appended, end = 0, time.monotonic() + STOPPED_S
        while time.monotonic() < end:
            appender = Appender(source, 20000, "--ack", "quorum", *IN_TIME, tag=f"{appended}")
            appender.start()
            summary = appender.summary()
            self.assertEqual((summary["entries"], summary["not_reached"]), (20000, 0))
            appended += 20000
            for name, pid in pids.items():
                most_kib[name] = max(most_kib[name], anonymous_kib(pid))
        self.assertEqual({name: source.pid(name) for name in pids}, pids)
        grown_kib = {name: most_kib[name] - before_kib[name] for name in pids}
        self.assertLess(max(grown_kib.values()), GROWTH_MAX_KIB, grown_kib)
        print(f"figure: a follower was stopped for {STOPPED_S} s: {appended} entries reached a quorum meanwhile; the source "
              f"grew by {grown_kib} KiB", flush=True)
        return appended

    def test_a_stopped_follower_harms_nobody(self):
        with Cluster(settings=SMALL, supervisor=PATIENT).start() as cluster:
            source, follower = cluster["n1"], cluster["n3"]
            warm = Appender(source, 50000, "--ack", "all", *IN_TIME)
            warm.start()
            warm.summary()
            stopped = [follower.kill(name, signal.SIGSTOP) for name in ("replsvc", "walsvc")]
            try:
                appended = self.check_while_stopped(source)
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            self.assertEqual([follower.pid(name) for name in ("replsvc", "walsvc")], stopped)
            self.assertEqual(wait_equal(cluster, timeout=180)[log_of(cluster, "n1")], 50000 + appended)

    def test_a_node_that_was_away_while_much_was_written_catches_up(self):
        with Cluster(settings="wal: {segment_size: 16MiB}\n" + TIMES).start() as cluster:
            cluster["n3"].kill_all()
            for name in ("n1", "n2"):
                append_much(cluster[name], MUCH_BYTES // 2)
            begun = time.monotonic()
            cluster["n3"].start()
            logs = wait_equal(cluster, timeout=1200)
            print(f"figure: {MUCH_BYTES >> 20} MiB that were missed were there, and compared, after "
                  f"{time.monotonic() - begun:.1f} s", flush=True)
            self.assertEqual(sum(logs.values()), MUCH_BYTES // LINE_BYTES)
            self.assertEqual(cluster["n3"].ctl("log", "verify", "--data", cluster["n3"].data, timeout=1200).returncode, 0)

    def test_a_wiped_node_gets_everything_again(self):
        with Cluster(settings=SMALL).start() as cluster:
            for node in cluster.nodes.values():
                appender = Appender(node, 2000, "--ack", "all", *IN_TIME)
                appender.start()
                appender.summary()
            old = log_of(cluster, "n3")
            cluster["n3"].kill_all()
            cluster["n3"].wipe()
            cluster["n3"].start()
            cluster["n1"].ctl("node", "join", "n3", "--replace")
            cluster.wait_healthy()
            logs = wait_equal(cluster)
            self.assertEqual(logs[old], 2000, "of the node as it was")
            self.assertEqual(len(logs), 4)

    def test_damage_is_fetched_from_a_holder_and_put_back(self):
        settings = SMALL.replace("disk_reserve: 1MiB", "disk_reserve: 1MiB, scrub_rate: 1GiB, scrub_interval: 1s")
        with Cluster(settings=settings).start() as cluster:
            appender = Appender(cluster["n1"], 60000, "--ack", "all", *IN_TIME)
            appender.start()
            appender.summary()
            uuid = log_of(cluster, "n1")
            whole = digest(cluster["n2"], uuid)
            for name in ("n1", "n3"): # in the origin, and in a copy
                base = min(segments(cluster[name], uuid))
                path = os.path.join(cluster[name].data, "log", uuid, f"{base:020}.seg")
                with open(path, "r+b") as file:
                    file.seek(100000)
                    file.write(b"\xff" * 5000)
            for name in ("n1", "n3"):
                wait_for(lambda name=name: cluster[name].log_lines("whole again"), f"the repair at {name}", 60, 0.2)
                wait_for(lambda name=name: digest(cluster[name], uuid) == whole, f"the same bytes at {name}", 30, 0.2)
                self.assertEqual(cluster[name].ctl("log", "verify", "--data", cluster[name].data).returncode, 0)

    def test_after_a_start_of_the_machine_a_log_goes_on_once_others_were_asked(self):
        """One that has lost its end: test_own_log_back.py."""
        with Cluster(settings=SMALL).start() as cluster:
            node, lines, alone = cluster["n1"], ["first"], 0
            node.ctl("append", "--ack", "all", *IN_TIME, "first")
            for _ in range(5):
                self.assertEqual(node.stop(), 0)
                os.unlink(os.path.join(node.data, "boot"))  # the machine was started: no other harm done
                node.start()
                lines.append(f"entry {len(lines)}")
                self.assertEqual(node.json("append", "--ack", "all", *IN_TIME, lines[-1])["first"]["lsn"], len(lines))
                wait_lines(cluster["n2"], log_of(cluster, "n1"), lines)
                before, alone = alone, len(node.log_lines("it goes on as it is"))
                if alone == before:  # on a busy machine, nobody may be able to tell for 5 s
                    return
            self.fail("others were there to be asked")


if __name__ == "__main__":
    unittest.main()
