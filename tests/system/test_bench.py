"""Memory of the daemons while they do as much as they can, and what `bench` tells as JSON."""
import json
import subprocess
import unittest

from shanghai import SERVICES, Node

MEMORY_MAX_MIB = 128
APPEND_FIELDS = {"entries", "errors", "ack", "seconds", "rate", "bytes_per_s", "p50_us", "p99_us", "p999_us", "group_bytes",
                 "nng_rtt_us", "disk_sync_us", "disk_bytes_per_s", "share_of_disk", "p50_to_limit"}
KV_FIELDS = {"keys", "size", "put", "view_behind_s", "get", "get_batch", "scan", "nng_rtt_us", "nng_echoes_per_s", "get_to_echo",
             "disk_sync_us", "disk_bytes_per_s"}
READ_FIELDS = {"entries", "seconds", "rate", "bytes_per_s"}


def anonymous_kib(pid):
    """PSS without pages of files."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


class Bench(unittest.TestCase):
    def setUp(self):
        self.node = Node("query: {view: true}").start()
        self.addCleanup(self.node.close)

    def bench(self, *args, endpoint=None):
        """Runs it, with an eye on the daemons' memory; what it prints. Longer when that was not looked at often enough."""
        for seconds in (2, 10, 30):
            figures, samples = self.bench_for(seconds, *args, endpoint=endpoint)
            if samples > 10:
                break
        self.assertGreater(samples, 10)
        return figures

    def bench_for(self, seconds, *args, endpoint):
        pids = {name: self.node.pid(name) for name in SERVICES}
        most_kib = dict.fromkeys(SERVICES, 0)
        samples = 0
        command = self.node.ctl_command("--format", "json", "bench", *args, "--duration", f"{seconds}s", endpoint=endpoint)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as bench:
            while bench.poll() is None:
                for name, pid in pids.items():
                    most_kib[name] = max(most_kib[name], anonymous_kib(pid))
                samples += 1
                try:
                    bench.wait(0.02)
                except subprocess.TimeoutExpired:
                    pass
            self.assertEqual(bench.returncode, 0)
            figures = json.load(bench.stdout)
        self.assertEqual(pids, {name: self.node.pid(name) for name in SERVICES})
        print(f"\nfigure: memory at most, MiB, bench {args[0]}{' over tcp' if endpoint else ''}: "
              + ", ".join(f"{name} {kib >> 10}" for name, kib in most_kib.items()) + f", of {samples} samples", flush=True)
        for name, kib in most_kib.items():
            self.assertLess(kib, MEMORY_MAX_MIB << 10, name)
        return figures, samples

    def test_memory_stays_bounded_while_appending_and_reading(self):
        load = ("append", "--size", "1024", "--batch", "100", "--in-flight", "64", "--disk-dir", self.node.dir)
        for endpoint in (None, self.node.tcp):
            figures = self.bench(*load, endpoint=endpoint)
            self.assertEqual(set(figures), APPEND_FIELDS)
            self.assertEqual((figures["errors"], figures["ack"]), (0, "local"))
            for name in APPEND_FIELDS - {"errors", "ack"}:
                self.assertGreater(figures[name], 0, name)
            self.assertLessEqual(figures["p50_us"], figures["p99_us"])
            self.assertLessEqual(figures["p99_us"], figures["p999_us"])
        for endpoint in (None, self.node.tcp):
            figures = self.bench("read", endpoint=endpoint)
            self.assertEqual(set(figures), READ_FIELDS)
            self.assertTrue(all(value > 0 for value in figures.values()), figures)

    def test_memory_stays_bounded_while_keys_are_put_and_read(self):
        for keys in ("50000", "50000", "1"):
            if keys == "1":
                self.node.close()
                self.setUp()
            figures = self.bench("kv", "--keys", keys, "--disk-dir", self.node.dir)
            self.assertEqual(set(figures), KV_FIELDS)
            self.assertEqual((figures["keys"], figures["size"]), (int(keys), 128))
            for name in KV_FIELDS - {"view_behind_s", "get_to_echo"}:
                rate = figures[name]["rate"] if isinstance(figures[name], dict) else figures[name]
                self.assertGreater(rate, 0, name)
        done = self.node.ctl("bench", "kv", "--keys", "0", check=False)
        self.assertEqual(done.returncode, 2)

    def test_keys_are_put_at_the_pace_that_is_asked_for(self):
        figures = self.node.json("bench", "kv", "--keys", "2000", "--rate", "10000", "--duration", "10ms", "--disk-dir",
                                 self.node.dir)
        self.assertLess(figures["put"]["rate"], 11000)

    def test_callers_share_a_client_with_so_many_appends_under_way(self):
        appended = 0
        for options in (("--callers", "3"), ("--callers", "3", "--in-flight", "2"), ("--in-flight", "1", "--batch", "7")):
            figures = self.node.json("bench", "append", "--duration", "200ms", "--disk-dir", self.node.dir, *options)
            self.assertEqual((figures["errors"], figures["ack"]), (0, "local"))
            self.assertEqual(figures["entries"] % (7 if "--batch" in options else 1), 0)
            appended += 1 + figures["entries"]  # one to connect
            self.assertEqual(self.node.json("log", "verify", "--data", self.node.data)["entries"], appended)


if __name__ == "__main__":
    unittest.main()
