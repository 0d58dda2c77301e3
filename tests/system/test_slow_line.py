"""Replication over a line with a round trip of 50 ms: it catches up, and a quorum costs what the line does."""
import json
import os
import statistics
import threading
import time
import unittest

from cluster import SUPERVISOR, TIMES, Cluster
from logs import log_of, positions, wait_equal
from netns import Network, why_no_networks
from shanghai import wait_for

NO_NETWORKS = why_no_networks()
ONE_WAY_MS = 25
MIB = 1 << 20
BYTES = (1024 if os.environ.get("SHANGHAI_LONG") else 64) * MIB
LINE = b"x" * 1023 + b"\n"


@unittest.skipIf(NO_NETWORKS, NO_NETWORKS)
class SlowLine(unittest.TestCase):
    def setUp(self):
        self.network = Network()
        self.addCleanup(self.network.close)
        self.cluster = Cluster(2, TIMES, SUPERVISOR, network=self.network)
        self.addCleanup(self.cluster.close)
        self.network.lengthen("n2", ONE_WAY_MS)
        self.cluster.start()
        self.here, self.there = self.cluster["n1"], self.cluster["n2"]
        self.log = log_of(self.cluster, "n1")

    def append(self, *options, lines):
        return json.loads(self.here.ctl("--format", "json", "append", *options, "-", input=lines).stdout)

    def plain_tcp(self):
        """Bytes/s of the line, by one connection of its own from n1 to n2."""
        def send():
            with self.network.socket_in("n1") as sender:
                sender.connect((self.there.host, 5000))
                for _ in range(BYTES // MIB):
                    sender.sendall(bytes(MIB))
        with self.network.socket_in("n2") as listener:
            listener.bind((self.there.host, 5000))
            listener.listen()
            thread = threading.Thread(target=send)
            thread.start()
            receiver, _ = listener.accept()
        taken, begun, began = 0, 0, None
        with receiver:
            while part := receiver.recv(MIB):
                taken += len(part)
                if began is None and taken > BYTES // 10:
                    begun, began = taken, time.monotonic()
        thread.join()
        return (taken - begun) / (time.monotonic() - began)

    def test_catching_up(self):
        self.there.stop_service("replsvc")
        last = self.append(lines=LINE * (BYTES // len(LINE)))["last"]["lsn"]
        self.there.ctl("svc", "start", "replsvc")

        def place():
            return positions(self.cluster, "n2").get(self.log, 0)
        wait_for(lambda: place() > last // 10, "the first tenth", 60)
        begun, began = place(), time.monotonic()
        wait_for(lambda: place() == last, "the rest", 600, 0.02)
        rate = (last - begun) * len(LINE) / (time.monotonic() - began)
        print(f"figure: catching up over a line with a round trip of {2 * ONE_WAY_MS} ms: {rate / 1e6:.1f} MB/s, "
              f"plain TCP {self.plain_tcp() / 1e6:.1f} MB/s", flush=True)
        wait_equal(self.cluster)

    def test_a_quorum(self):
        took_us = []
        for _ in range(30):  # one after the other
            append = self.append("--ack", "quorum", "--ack-timeout", "60s", lines=b"x\n")
            self.assertEqual((append["ack"], append["not_reached"]), ("all", 0))
            took_us.append(append["p50_us"])
        print(f"figure: quorum append over a line with a round trip of {2 * ONE_WAY_MS} ms, one caller: p50 "
              f"{statistics.median(took_us) / 1000:.1f} ms", flush=True)
        wait_equal(self.cluster)


if __name__ == "__main__":
    unittest.main()
