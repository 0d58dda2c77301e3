"""Replication in a cluster of three nodes, on one machine and one disk: each entry is written three times."""
import os
import time

from shanghai import wait_for
from texts import bytes_text, median_of, ms_text, rate_text

RATE = 250_000       # entries/s that both followers are to sustain
LAG_US = 20_000      # at half that rate
RATIO = 2.5          # of a quorum append's p50 to the local one's
CATCH_UP = 200e6     # bytes/s
NEAR_LIMIT = 0.8     # so much of what loopback and disk do is their limit
BACKLOG = {False: 1 << 30, True: 64 << 20}
COPY_BYTES = 4 << 20  # of a fetch


def replicate(works, cluster, *words):
    return works.bench(cluster["n1"], "replicate", "--disk-dir", works.plan.dir, *words)


def slower(figures):
    """Of both followers: the lower rate, the longer lag."""
    followers = figures["followers"]
    return {"appended": figures["rate"], "rate": min(f["rate"] for f in followers),
            "lag_p50_us": max(f["lag_p50_us"] for f in followers), "lag_p99_us": max(f["lag_p99_us"] for f in followers)}


def follower(node, name):
    return next(f for f in node.json("replicas")["followers"] if f["follower"] == name)


def write_backlog(works, node, size):
    end = node.json("status")["durable_end"] + size
    while node.json("status")["durable_end"] < end:
        node.json("bench", "append", "--disk-dir", works.plan.dir, "--size", "1024", "--duration",
                  "200ms" if works.plan.quick else "1s")


def is_level(node, name):
    return follower(node, name)["lag_bytes"] == 0


def catch_up(works, cluster):
    """n3 was away while so much was written. The clock starts at the last look that saw nothing of it there: starting a
    process and meeting the others is not copying."""
    n1, n3 = cluster["n1"], cluster["n3"]
    n3.stop()
    write_backlog(works, n1, BACKLOG[works.plan.quick])
    wait_for(lambda: is_level(n1, "n2"), "n2 to have all", 120, 0.1)
    os.sync()
    begin = follower(n1, "n3")["end"]
    started = first_s = time.monotonic()
    n3.spawn()

    def has_some():
        nonlocal first_s
        look_s = time.monotonic()
        if follower(n1, "n3")["end"] > begin:
            return True
        first_s = look_s
        return False
    wait_for(has_some, "n3 to get something", 60, 0.005)
    wait_for(lambda: is_level(n1, "n3"), "n3 to have all", 600, 0.02)
    end_s = time.monotonic()
    copied = follower(n1, "n3")["end"] - begin
    n3.wait_ready()
    disk = works.bench_append(n1, size=1 << 20, batch=COPY_BYTES >> 20, in_flight=1)
    return {"bytes": copied, "seconds": round(end_s - first_s, 3), "bytes_per_s": round(copied / (end_s - first_s)),
            "since_start_s": round(end_s - started, 3), "disk_bytes_per_s": disk["disk_bytes_per_s"]}


def is_followed(node):
    """By both: a cluster that is healthy may not have got so far."""
    followers = (node.try_json("replicas") or {"followers": []})["followers"]
    return [f["state"] == "disconnected" for f in followers] == [False, False]


def one_round(works, where):
    with works.cluster() as cluster:
        wait_for(lambda: is_followed(cluster["n1"]), "both followers", 60, 0.05)
        works.progress(f"replicate, {where}: as fast as it goes")
        full = replicate(works, cluster)
        works.progress(f"replicate, {where}: at half the rate to reach")
        half = replicate(works, cluster, "--rate", str(RATE // 2))
        works.progress(f"replicate, {where}: quorum")
        quorum = replicate(works, cluster, "--quorum")
        works.progress(f"replicate, {where}: catching up")
        caught_up = catch_up(works, cluster)
    caught_up["nng_tcp_bytes_per_s"] = quorum["nng_tcp_bytes_per_s"]
    return {"full": full, "half": half, "quorum": quorum, "catch_up": caught_up}


def report_full(works, rounds):
    median = median_of([slower(r["full"]) for r in rounds])
    limit = median_of([{name: r["full"][name] for name in ("disk_bytes_per_s", "group_bytes")} for r in rounds])
    works.show(f"  128 B x 100, 64 in flight: {rate_text(median['appended'])} appended, lag p50 {ms_text(median['lag_p50_us'])} "
               f"p99 {ms_text(median['lag_p99_us'])} ms; bare disk {bytes_text(limit['disk_bytes_per_s'])} by "
               f"{limit['group_bytes'] / 1000:.0f} kB")
    return dict({"median": median}, **works.target(
        f"both followers sustain {rate_text(median['rate'])}, to reach {rate_text(RATE)}", median["rate"] >= RATE))


def report_half(works, rounds):
    median = median_of([slower(r["half"]) for r in rounds])
    return dict({"median": median}, **works.target(
        f"at {rate_text(median['rate'])} lag p50 {ms_text(median['lag_p50_us'])} p99 {ms_text(median['lag_p99_us'])} ms, to "
        f"reach {ms_text(LAG_US)}", median["lag_p99_us"] < LAG_US and median["rate"] >= 0.95 * RATE / 2))


def report_quorum(works, rounds):
    median = median_of([{"ratio": q["ratio"], "nng_tcp_rtt_us": q["nng_tcp_rtt_us"], "disk_sync_us": q["disk_sync_us"],
                         **{f"{level}_{name}": q[level][name] for level in ("local", "quorum") for name in ("p50_us", "p99_us")}}
                        for q in (r["quorum"] for r in rounds)])
    works.show(f"  one caller: local p50 {ms_text(median['local_p50_us'])} p99 {ms_text(median['local_p99_us'])} ms, quorum p50 "
               f"{ms_text(median['quorum_p50_us'])} p99 {ms_text(median['quorum_p99_us'])} ms; nng round trip "
               f"{median['nng_tcp_rtt_us']:.0f} us, write and sync {median['disk_sync_us']:.0f} us")
    return dict({"median": median}, **works.target(
        f"a quorum takes {median['ratio']:.2f} x the local p50, to reach {RATIO}", median["ratio"] <= RATIO))


def report_catch_up(works, rounds):
    median = median_of([r["catch_up"] for r in rounds])
    limit = min(median["nng_tcp_bytes_per_s"], median["disk_bytes_per_s"])
    works.show(f"  {median['bytes'] / 2**20:.0f} MiB in {median['seconds']:.2f} s, {median['since_start_s']:.2f} s since the start of "
               f"its node; loopback {bytes_text(median['nng_tcp_bytes_per_s'])}, bare disk "
               f"{bytes_text(median['disk_bytes_per_s'])} by {COPY_BYTES >> 20} MiB")
    reached = median["bytes_per_s"] >= min(CATCH_UP, NEAR_LIMIT * limit)
    return dict({"median": median}, **works.target(
        f"a follower catches up at {bytes_text(median['bytes_per_s'])}, to reach {bytes_text(CATCH_UP)}, or {NEAR_LIMIT} of "
        "loopback and disk", reached))


def measure(works):
    works.show("three nodes on this machine and one disk")
    rounds = [one_round(works, f"round {number} of {works.plan.rounds}") for number in range(1, works.plan.rounds + 1)]
    return {"full": report_full(works, rounds), "half": report_half(works, rounds), "quorum": report_quorum(works, rounds),
            "catch_up": report_catch_up(works, rounds), "rounds": rounds}
