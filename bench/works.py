"""What is measured. Each work runs alone, on a fresh node (and a fresh Redis), whose files are gone before the next one
starts: synced, so that the disk is not busy with them any more. The page cache that is used is always the same."""
import contextlib
import os

import kv
import replication
from cluster import Cluster
from redis_peer import Redis
from shanghai import Node
from texts import bytes_text, median_of, ms_text, rate_text

SCAN_SIZES = {False: ((10, 20, 50, 100), (1, 2, 4, 8)), True: ((20, 100), (1, 4))}


def append_text(f):
    return f"{rate_text(f['rate']):>10}  {bytes_text(f['bytes_per_s']):>9}  p50 {ms_text(f['p50_us'])} p99 {ms_text(f['p99_us'])} ms"


class Works:
    """plan: duration (s), rounds, quick, dir. progress(text) says what runs, show(text) is a line of the report."""

    def __init__(self, plan, progress, show):
        self.plan = plan
        self.progress = progress
        self.show = show

    @contextlib.contextmanager
    def node(self, settings=""):
        """A fresh node that runs; whatever happens, it is ended and its files are removed."""
        node = Node(settings, parent=self.plan.dir)
        try:
            yield node.start()
        finally:
            node.close()
            os.sync()

    @contextlib.contextmanager
    def cluster(self):
        """Three of them."""
        cluster = Cluster(parent=self.plan.dir)
        try:
            yield cluster.start()
        finally:
            cluster.close()
            os.sync()

    def bench(self, node, *words):
        return node.json("bench", *words, "--duration", f"{int(self.plan.duration * 1000)}ms",
                         timeout=self.plan.duration + 120)

    def bench_append(self, node, **options):
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
        return self.bench(node, "append", "--disk-dir", self.plan.dir, *words)

    def append_rounds(self, what, **options):
        rounds = []
        for number in range(1, self.plan.rounds + 1):
            self.progress(f"{what}, round {number} of {self.plan.rounds}")
            with self.node() as node:
                rounds.append(self.bench_append(node, **options))
        return rounds

    def target(self, text, reached):
        self.show(f"  {text}: {'reached' if reached else 'MISSED'}")
        return {"target": text, "reached": reached}

    def against_redis(self, size, reach):
        """Ours and Redis in turn."""
        what = f"{size} B x 100 a batch, 64 in flight"
        self.show(f"{what}; Redis: XADD, appendfsync always, 50 clients, pipeline 100")
        ours, redis = [], []
        for number in range(1, self.plan.rounds + 1):
            where = f"{size} B, round {number} of {self.plan.rounds}"
            self.progress(f"{where}: ours")
            with self.node() as node:
                ours.append(self.bench_append(node, size=size, batch=100, in_flight=64))
            self.show(f"  ours   {append_text(ours[-1])}  {ours[-1]['share_of_disk']:.2f} of the bare disk: "
                      f"{bytes_text(ours[-1]['disk_bytes_per_s'])} by {ours[-1]['group_bytes'] // 1000} kB")
            self.progress(f"{where}: redis")
            with Redis(self.plan.dir) as peer:
                redis.append(peer.append_for(self.plan.duration, size))
            os.sync()
            self.show(f"  redis  {append_text(redis[-1])}")
        result = {"ours": median_of(ours), "redis": median_of(redis), "rounds": {"ours": ours, "redis": redis}}
        result["ratio"] = round(result["ours"]["rate"] / result["redis"]["rate"], 2)
        self.show(f"  medians: {rate_text(result['ours']['rate'])} to {rate_text(result['redis']['rate'])}")
        result.update(self.target(f"{result['ratio']:.2f} x Redis, to reach {reach}", result["ratio"] >= reach))
        return result

    def redis_128(self):
        return self.against_redis(128, 4)

    def redis_1k(self):
        return self.against_redis(1024, 3)

    def scan(self):
        """One node for all settings: it is the settings that are compared."""
        batches, flights = SCAN_SIZES[self.plan.quick]
        self.show("128 B: entries/s and p50/p99 in ms, by entries of a batch and batches in flight")
        self.show("  batch " + "".join(f"{str(n) + ' in flight':>28}" for n in flights))
        settings = []
        with self.node() as node:
            for batch in batches:
                cells = []
                for flight in flights:
                    self.progress(f"scan: batches of {batch}, {flight} in flight")
                    f = self.bench_append(node, size=128, batch=batch, in_flight=flight)
                    settings.append(dict(f, batch=batch, in_flight=flight))
                    cells.append(f"{rate_text(f['rate'])} {ms_text(f['p50_us'])}/{ms_text(f['p99_us'])}")
                self.show(f"  {batch:5} " + "".join(f"{cell:>28}" for cell in cells))
        quick = [f for f in settings if f["p99_us"] < 2000]
        best = max(quick, key=lambda f: f["rate"], default=None)
        text = f"{rate_text(best['rate'])} by {best['batch']} x {best['in_flight']}" if best else "none"
        return dict({"settings": settings, "best": best},
                    **self.target(f"most with p99 < 2 ms: {text}, to reach 250 k/s", bool(best) and best["rate"] >= 250000))

    def by_callers(self, callers, outstanding, reach):
        """reach(median, limit): limit is what nng and the disk alone took, the medians over the rounds too, so that one
        moment when something else kept them busy makes no run look good."""
        what = f"{callers} caller{'s' * (callers > 1)}, one entry of 128 B, {outstanding} outstanding each"
        rounds = self.append_rounds(what, callers=callers, in_flight=outstanding)
        median = median_of(rounds)
        rtt_us, sync_us = (min(f[name] for f in rounds) for name in ("nng_rtt_us", "disk_sync_us"))
        self.show(f"{what}, one client")
        self.show(f"  {append_text(median)}; nng round trip {rtt_us} us, write and sync {sync_us} us")
        return dict({"median": median, "limit_us": rtt_us + sync_us, "rounds": rounds}, **reach(median, rtt_us + sync_us))

    def caller_1(self):
        return self.by_callers(1, 1, lambda f, limit_us: self.target(
            f"p50 is {f['p50_us'] / limit_us:.2f} x (round trip + sync), to reach 1.25", f["p50_us"] <= 1.25 * limit_us))

    def callers_50(self):
        return self.by_callers(50, 1, lambda f, _: self.target(
            f"{rate_text(f['rate'])}, p99 {ms_text(f['p99_us'])} ms, to reach 100 k/s below 2 ms",
            f["rate"] >= 100000 and f["p99_us"] < 2000))

    def callers_50x4(self):
        return self.by_callers(50, 4, lambda f, _: self.target(
            f"{rate_text(f['rate'])}, to reach 250 k/s", f["rate"] >= 250000))

    def read(self):
        """From the page cache: what was just written."""
        result = {}
        self.show("bench read, sequential, through querysvc")
        for size in (128, 1024):
            rounds = []
            self.progress(f"read: filling a node with entries of {size} B")
            with self.node() as node:
                self.bench_append(node, size=size, batch=100, in_flight=16)
                for number in range(1, self.plan.rounds + 1):
                    self.progress(f"read: {size} B, round {number} of {self.plan.rounds}")
                    rounds.append(self.bench(node, "read"))
            median = median_of(rounds)
            self.show(f"  {size:4} B  {rate_text(median['rate']):>10}  {bytes_text(median['bytes_per_s']):>9}")
            result[f"size_{size}"] = {"median": median, "rounds": rounds}
        rate = result["size_128"]["median"]["rate"]
        bytes_per_s = result["size_1024"]["median"]["bytes_per_s"]
        return dict(result, **self.target(
            f"{rate_text(rate)} of 128 B, {bytes_text(bytes_per_s)} of 1 KiB, to reach 3 M/s or 1 GB/s",
            rate >= 3e6 or bytes_per_s >= 1e9))

    def keys(self):
        return kv.measure(self)

    def replicate(self):
        return replication.measure(self)


WORKS = {
    "redis-128": Works.redis_128,
    "redis-1k": Works.redis_1k,
    "scan": Works.scan,
    "caller-1": Works.caller_1,
    "callers-50": Works.callers_50,
    "callers-50x4": Works.callers_50x4,
    "read": Works.read,
    "redis-kv": Works.keys,
    "replicate": Works.replicate,
}
