"""Two nodes that did not reach each other for so long that both have trimmed what the other one lacks."""
import os
import unittest

from cluster import SUPERVISOR, TIMES, Cluster
from logs import log_of
from netns import Network, why_no_networks
from shanghai import wait_for
from trimmed import VIEW_SETTINGS, fill, rows, trim_to, wait_equal_views, wait_let_go, write

NO_NETWORKS = why_no_networks()
SETTINGS = VIEW_SETTINGS + TIMES
FRAMES = 12


@unittest.skipIf(NO_NETWORKS, NO_NETWORKS)
class Partition(unittest.TestCase):
    def test_two_sides_that_both_trimmed(self):
        network = Network()
        self.addCleanup(network.close)
        cluster = Cluster(2, SETTINGS, SUPERVISOR, network=network)
        self.addCleanup(cluster.close)
        cluster.start()
        logs = {name: log_of(cluster, name) for name in cluster.nodes}
        for node in cluster.nodes.values():
            write(node, [f"put before {node.name}\nincr c7 1000\n"], "--ack", "all", "--ack-timeout", "60s")
        wait_equal_views(cluster)
        network.pull_cable("n2")
        for name in cluster.nodes:
            cluster.wait_status("n2" if name == "n1" else "n1", "down", seen_by=[name])
        for name, other in (("n1", "n2"), ("n2", "n1")):
            fill(cluster[name], name, FRAMES)
            write(cluster[name], [f"put both {name}\nput {name} only\ndel before\n"])
            trim_to(cluster[name], logs[name], 1000, release=other)
        apart = {name: rows(node) for name, node in cluster.nodes.items()}
        for name in cluster.nodes:
            self.assertEqual(apart[name]["c7"]["counter"], 2000 + FRAMES)
        network.plug_cable("n2")
        cluster.wait_healthy(60)
        both = wait_equal_views(cluster)
        self.assertEqual({key: row["counter"] for key, row in both.items() if "counter" in row},
                         {f"c{i}": 2 * FRAMES + (2000 if i == 7 else 0) for i in range(100)})
        self.assertEqual(set(both), set(apart["n1"]) | set(apart["n2"]))
        winner = max((apart[name]["both"] for name in apart), key=lambda row: (row["version"]["hlc"], row["version"]["log"]))
        self.assertEqual(both["both"], winner)
        for node in cluster.nodes.values():
            self.assertTrue(node.log_lines("the view was merged with a member's"))
            self.assertEqual(node.log_lines("a log holds other entries"), [])
        for log in logs.values():
            wait_let_go(cluster, log)
        for name in cluster.nodes:
            fill(cluster[name], "together", 1)
        self.assertEqual(wait_equal_views(cluster)["c7"]["counter"], 2000 + 2 * FRAMES + 2)
        file = os.path.join(cluster["n1"].dir, "session")
        cluster["n1"].ctl("kv", "put", "--session", file, "s", "1")
        wait_for(lambda: cluster["n2"].ctl("kv", "get", "--session", file, "s", check=False).stdout == b"1\n", "the session")


if __name__ == "__main__":
    unittest.main()
