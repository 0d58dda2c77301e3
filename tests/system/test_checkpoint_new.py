"""A node that is new, or has a new disk, and what it can have from no log any more: rows from another member's view."""
import os
import unittest

from cluster import SUPERVISOR, TIMES, Cluster
from logs import log_of
from shanghai import Node, free_port, member_row, wait_for
from trimmed import VIEW_SETTINGS, fill, lose_view, trim, trim_all, wait_equal_views, wait_let_go, wait_rows

SETTINGS = VIEW_SETTINGS + TIMES


class New(unittest.TestCase):
    def start(self, count):
        cluster = Cluster(count, SETTINGS)
        self.addCleanup(cluster.close)
        return cluster.start()

    def test_a_node_that_joins_after_trimming(self):
        cluster = self.start(2)
        for name in cluster.nodes:
            fill(cluster[name], name)
        for name in cluster.nodes:
            trim_all(cluster, log_of(cluster, name), 1000)
        row = member_row("n3", "127.0.0.1", free_port(6))
        cluster.nodes["n3"] = Node(SETTINGS, SUPERVISOR, name="n3", members=[*cluster.members, row])
        cluster["n1"].ctl("node", "join", "n3", "--host", row["host"], "--port", str(row["port"]))
        cluster["n3"].start()
        cluster.wait_healthy()
        both = wait_equal_views(cluster)
        self.assertEqual(both["c7"]["counter"], 24)
        for name in cluster.nodes:
            wait_let_go(cluster, log_of(cluster, name))
        file = os.path.join(cluster["n1"].dir, "session")
        cluster["n3"].ctl("kv", "incr", "--session", file, "c7")
        self.assertEqual(cluster["n1"].json("kv", "get", "--session", file, "c7")[0]["counter"], 25)

    def test_a_disk_that_was_lost_and_a_log_that_nobody_has_any_more(self):
        """All that there was of the old n3 is in views alone."""
        cluster = self.start(3)
        fill(cluster["n3"], "of the old n3", 1, "--ack", "all", "--ack-timeout", "60s")
        before = wait_equal_views(cluster)
        old = log_of(cluster, "n3")
        cluster["n3"].kill_all()
        cluster["n3"].wipe()
        cluster["n3"].start()
        cluster["n1"].ctl("node", "join", "n3", "--replace")
        cluster.wait_healthy()
        for node in cluster.nodes.values():
            wait_for(lambda node=node: node.json("log", "info", "--log", old)["closed"], "the log to be closed", 60, 0.1)
            wait_for(lambda node=node: trim(node, old).get("drops") or not os.path.exists(f"{node.data}/log/{old}"),
                     "the log to go", 60, 0.1)
        for node in cluster.nodes.values():
            wait_for(lambda node=node: not os.path.exists(f"{node.data}/log/{old}"), f"it to leave {node.name}", 60, 0.1)
        cluster["n2"].kill_all()
        lose_view(cluster["n2"])
        cluster["n2"].start()
        wait_rows(cluster["n2"], before)


if __name__ == "__main__":
    unittest.main()
