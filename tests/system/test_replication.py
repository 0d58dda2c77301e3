"""Three nodes, each of which takes writes: all have everything, byte for byte."""
import os
import random
import shutil
import signal
import time
import unittest

from cluster import Cluster
from logs import Appender, digest, log_of, read_lines, segments, wait_equal
from shanghai import wait_for

LONG = bool(os.environ.get("SHANGHAI_LONG"))
SMALL = "wal: {segment_size: 1MiB, disk_reserve: 1MiB}\nmember: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}"


class Replication(unittest.TestCase):
    def test_every_node_writes_and_every_node_has_everything(self):
        with Cluster(settings=SMALL).start() as cluster:
            appenders = [Appender(node, 50000, "--ack", "quorum") for node in cluster.nodes.values()]
            for appender in appenders:
                appender.start()
            for appender in appenders:
                self.assertEqual(appender.summary()["entries"], 50000)
            logs = wait_equal(cluster)
            self.assertEqual(sorted(logs.values()), [50000] * 3)
            for name, node in cluster.nodes.items():
                self.assertEqual(node.ctl("log", "verify", "--data", node.data).returncode, 0)
                for appender, origin in zip(appenders, cluster.nodes):
                    uuid = log_of(cluster, origin)
                    self.assertGreater(len(segments(node, uuid)), 1, "several segments, or nothing was sealed")
                    self.assertEqual(read_lines(node, uuid), appender.lines, (name, origin))

    def test_a_quorum_needs_a_majority(self):
        with Cluster(settings=SMALL).start() as cluster:
            self.assertIn(cluster["n1"].json("append", "--ack", "quorum", "x")["ack"], ("quorum", "all"))
            self.assertEqual(cluster["n1"].json("append", "--ack", "all", "x")["ack"], "all")
            cluster["n3"].kill_all()
            self.assertEqual(cluster["n1"].json("append", "--ack", "quorum", "x")["ack"], "quorum")
            done = cluster["n1"].ctl("append", "--ack", "all", "--ack-timeout", "500ms", "x", check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"quorum", done.stderr)
            cluster["n2"].kill_all()
            done = cluster["n1"].ctl("append", "--ack", "quorum", "--ack-timeout", "500ms", "x", check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"durable on this node", done.stderr)
            self.assertEqual(cluster["n1"].json("status")["durable_lsn"], 5, "all are durable here")
            for name in ("n2", "n3"):
                cluster[name].start()
            wait_equal(cluster)
            self.assertEqual(cluster["n1"].json("append", "--ack", "all", "x")["ack"], "all")

    def test_a_dead_nodes_entries_reach_those_who_lack_them(self):
        with Cluster(settings=SMALL).start() as cluster:
            uuid = log_of(cluster, "n1")
            cluster["n3"].kill_all()
            appender = Appender(cluster["n1"], 3000, "--ack", "quorum") # n2 has them
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
            appenders = [Appender(node, count, "--ack", "quorum", "--ack-timeout", "60s")
                         for node in cluster.nodes.values()]
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
                self.assertEqual(read_lines(cluster["n2"], log_of(cluster, name)), appender.lines)
            print(f"count: daemons of a cluster killed {kills}", flush=True)

    def test_a_stopped_follower_harms_nobody(self):
        with Cluster(settings=SMALL).start() as cluster:
            stopped = [cluster["n3"].pid(name) for name in ("replsvc", "walsvc")]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            appender = Appender(cluster["n1"], 100000, "--ack", "quorum")
            appender.start()
            self.assertEqual(appender.summary()["entries"], 100000)
            with open(f"/proc/{cluster['n1'].pid('replsvc')}/status", encoding="ascii") as status:
                memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
            self.assertLess(memory, 64 << 10, "KiB of replsvc at the source")
            for pid in stopped:
                try: # the watchdog may have been faster
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            wait_equal(cluster)

    def test_a_wiped_node_gets_everything_again(self):
        with Cluster(settings=SMALL).start() as cluster:
            for node in cluster.nodes.values():
                appender = Appender(node, 2000, "--ack", "all")
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
            appender = Appender(cluster["n1"], 60000, "--ack", "all")
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

    def test_a_log_that_lost_its_end_is_not_extended(self):
        """As after a disk that lied, or a snapshot that was rolled back, and a start of the machine."""
        with Cluster(settings=SMALL).start() as cluster:
            node = cluster["n1"]
            node.ctl("append", "--ack", "all", "first")
            node.stop()
            shutil.copytree(node.data, node.dir + "/before", symlinks=True)
            node.start()
            self.assertEqual(node.json("append", "--ack", "all", "second")["first"]["lsn"], 2)
            node.stop()
            os.unlink(os.path.join(node.data, "boot"))  # the machine was started: no other harm done
            node.start()
            self.assertEqual(node.json("append", "--ack", "all", "third")["first"]["lsn"], 3)
            self.assertEqual(node.log_lines("it goes on as it is"), [], "others were there to be asked")
            node.stop()
            shutil.rmtree(node.data)
            shutil.move(node.dir + "/before", node.data)
            os.unlink(os.path.join(node.data, "boot"))
            node.start()
            done = node.ctl("append", "other", check=False)
            self.assertIn(b"read_only", done.stderr)
            self.assertIn(b"behind its copies", done.stderr)
            self.assertEqual(read_lines(cluster["n2"], log_of(cluster, "n1")), ["first", "second", "third"])


if __name__ == "__main__":
    unittest.main()
