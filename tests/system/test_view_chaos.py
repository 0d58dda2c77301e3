"""The view of three nodes under load from all sides, kills of daemons and partitions: when all is quiet the nodes have the same
rows, those that a model makes of the logs; and what sessions saw meanwhile was what they are promised."""
import os
import random
import time
import unittest

import kv_sessions
from chaos import Faults
from cluster import SUPERVISOR, Cluster
from logs import log_of, wait_equal
from netns import Network, why_no_networks
from shanghai import wait_for
from view_model import Model, check_rows, is_up_to_date, read_log, scan_of, wait_equal_digests

LONG = bool(os.environ.get("SHANGHAI_LONG"))
NO_NETWORKS = why_no_networks()
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))
SETTINGS = ("wal: {segment_size: 1MiB, disk_reserve: 1MiB}\nquery: {view: true}\n"
            "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}")
SESSIONS = 6
ROUNDS = 120 if LONG else 14
ROUND_S = 1.0
ACROSS = True


@unittest.skipIf(NO_NETWORKS, NO_NETWORKS)
class Chaos(unittest.TestCase):
    def setUp(self):
        print(f"\nseed {SEED}", flush=True)
        self.network = Network()
        self.addCleanup(self.network.close)
        self.cluster = Cluster(3, SETTINGS, SUPERVISOR, network=self.network)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        folder = self.cluster["n1"].dir
        self.clients = [kv_sessions.Session(self.cluster, number, SEED, folder) for number in range(SESSIONS)]
        self.addCleanup(self.stop)
        for client in self.clients:
            client.start()

    def stop(self):
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.stop()

    def wait_answers(self, more=5):
        before = {client: client.answers for client in self.clients}
        for client in self.clients:
            wait_for(lambda c=client: c.answers >= before[c] + more or c.error, f"answers to {client.name}", 60)

    def check_views(self, logs):
        nodes = list(self.cluster.nodes.values())
        for node in nodes:
            wait_for(lambda n=node: is_up_to_date(n), f"all to be applied at {node.name}", 60)
        wait_equal_digests(nodes, 60)
        model = Model(entry for log in logs.values() for entry in log)
        now_ms = int(time.time() * 1000)
        for node in nodes:
            check_rows(node, model, now_ms)
        counters = {key.decode(): row[3] for key, row in scan_of(nodes[0]).items()}
        self.assertEqual(list(kv_sessions.faults_of_counters(self.clients, counters)), [])

    def test_views_are_equal_and_as_the_logs_say(self):
        faults = Faults(self.cluster, self.network, random.Random(SEED))
        for _ in range(ROUNDS):
            due = time.monotonic() + ROUND_S
            faults.round()
            wait_for(lambda d=due: time.monotonic() >= d, "the next round")
        faults.heal()
        for node in self.cluster.nodes.values():
            node.wait_ready()
        self.cluster.wait_healthy(60)
        self.wait_answers()
        self.stop()
        print(f"faults: {' '.join(faults.told)}")
        print(f"count: daemons of a cluster killed {faults.killed}")
        print(f"figure: sessions on 3 nodes under faults: {kv_sessions.summary(self.clients)}")
        wait_equal(self.cluster)
        logs = {uuid: read_log(self.cluster["n1"], uuid) for uuid in (log_of(self.cluster, name) for name in self.cluster.nodes)}
        found = kv_sessions.judge(self.clients, logs, ACROSS)
        self.assertEqual(found[:20], [], f"{len(found)} faults")
        wait_for(lambda: time.time_ns() > self.last_of_short_ns(logs), "the short ones to have expired")
        self.check_views(logs)

    @staticmethod
    def last_of_short_ns(logs):
        """When all but those of an hour have expired."""
        soon_ms = int(time.time() * 1000) + 60000
        return 10**6 * max((entry.expires_ms for log in logs.values() for entry in log if entry.expires_ms < soon_ms), default=0)


if __name__ == "__main__":
    unittest.main()
