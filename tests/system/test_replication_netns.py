"""Replicated nodes on a network of their own, under load and faults; a judge of the clients' histories (history.py) says
whether all that was promised is there."""
import os
import random
import time
import unittest

import history
from chaos import Faults
from cluster import SUPERVISOR, Cluster
from logs import log_of, wait_equal
from netns import Network, why_no_networks
from shanghai import wait_for

LONG = bool(os.environ.get("SHANGHAI_LONG"))
NO_NETWORKS = why_no_networks()
SEED = int(os.environ.get("SHANGHAI_SEED", random.SystemRandom().randrange(1 << 32)))
SETTINGS = ("wal: {segment_size: 1MiB, disk_reserve: 1MiB}\n"
            "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}")
CLIENTS = 2  # of each node
ROUNDS = 120 if LONG else 20
ROUND_S = 1.0


@unittest.skipIf(NO_NETWORKS, NO_NETWORKS)
class UnderFaults(unittest.TestCase):
    def start(self, count):
        print(f"\nseed {SEED}", flush=True)
        self.network = Network()
        self.addCleanup(self.network.close)
        self.cluster = Cluster(count, SETTINGS, SUPERVISOR, network=self.network)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.owners = {log_of(self.cluster, name): name for name in self.cluster.nodes}
        self.clients = [history.Client(node, number, SEED) for node in self.cluster.nodes.values()
                        for number in range(CLIENTS)]
        self.addCleanup(self.stop_clients)
        for client in self.clients:
            client.start()

    def stop_clients(self):
        for client in self.clients:
            client.over.set()
        return [call for client in self.clients for call in client.stop()]

    def judge(self, lost=()):
        calls = self.stop_clients()
        wait_equal(self.cluster)
        history.check(calls, self.cluster, self.owners, lost)
        print(f"figure: {len(self.cluster.nodes)} nodes in namespaces under faults: {history.summary(calls)}")
        return calls

    def wait_answers(self, level, more=5):
        """Each client gets some more answers of that level."""
        def answered(client):
            return sum(call.level in (level, "all") for call in client.calls)
        before = {client: answered(client) for client in self.clients}
        for client in self.clients:
            wait_for(lambda c=client: answered(c) >= before[c] + more, f"answers to {client.name}", 60)

    def check_chaos(self, count):
        self.start(count)
        faults = Faults(self.cluster, self.network, random.Random(SEED))
        for _ in range(ROUNDS):
            due = time.monotonic() + ROUND_S
            faults.round()
            wait_for(lambda: time.monotonic() >= due, "the next round")
        faults.heal()
        for node in self.cluster.nodes.values():
            node.wait_ready()
        self.cluster.wait_healthy(60)
        self.wait_answers("quorum")
        print(f"faults: {' '.join(faults.told)}")
        print(f"count: daemons of a cluster killed {faults.killed}")
        self.judge()

    def test_three_nodes(self):
        self.check_chaos(3)

    @unittest.skipUnless(LONG, "takes minutes")
    def test_five_nodes(self):
        self.check_chaos(5)

    def test_a_disk_that_is_lost_under_load_takes_nothing_that_a_quorum_had(self):
        self.start(3)
        self.wait_answers("quorum")
        node = self.cluster["n1"]
        old = log_of(self.cluster, "n1")
        node.kill_all()
        node.wipe()
        self.cluster.wait_status("n1", "down", seen_by=("n2", "n3"))
        self.cluster["n2"].ctl("node", "join", "n1", "--replace")
        node.start()
        self.cluster.wait_healthy()
        self.owners[log_of(self.cluster, "n1")] = "n1"
        self.assertEqual(len(self.owners), 4)
        self.wait_answers("quorum")
        self.judge(lost=[old])


if __name__ == "__main__":
    unittest.main()
