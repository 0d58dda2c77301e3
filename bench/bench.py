"""Our benchmarks, and the same work for Redis in the same run: see --help.

Run by script/bench, which builds first; by itself it takes the programs in $SHANGHAI_BIN."""
import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time

from redis_peer import Missing, need_programs
from shanghai import BIN
from texts import bytes_text
from works import WORKS, Works

DESCRIPTION = """Measures durable appends and reads of a private node, the same appends of a private redis-server in turn
with them, and replication in a private cluster of three nodes, with what the bare disk and nng do beside it. Prints medians
and what is to be reached."""
EPILOG = """works: redis-128, redis-1k (ours and Redis in turn; redis is short for all that begin so), scan (batches and appends in flight,
for a rate at a short p99), caller-1, callers-50, callers-50x4 (single entries; callers is short for all three), read,
redis-kv (keys: put, got, scanned; ours and Redis in turn), replicate (three nodes: what followers sustain, lag at half of what is to be reached, an append to a quorum, and how fast a
follower catches up 1 GiB).

Redis comes from Debian's package redis-server; only the works that are named after it need it. The files of a round (some
GB) lie in DIR, on one disk for both, and are removed after it. First as many bytes are written and removed: on a virtual
machine memory that is used for the first time can be several times slower than what comes after, for whoever is first.

exit codes: 0 measured, whether all is reached or not; 1 something failed; 2 usage"""
SHORT = {"redis": ["redis-128", "redis-1k", "redis-kv"], "callers": ["caller-1", "callers-50", "callers-50x4"]}
SOCKET_PATH_MAX = 107
WARM_RATE = 10**9  # bytes/s: about the most that a round writes, ours and Redis' memory included
BUSY_LOAD = 0.5
PIECE = bytes(1 << 20)


def seconds(text):
    value = float(text[:-1] if text.endswith("s") else text)
    if not 0.1 <= value <= 3600:
        raise ValueError
    return value


def count(text):
    value = int(text)
    if not 1 <= value <= 100:
        raise ValueError
    return value


def parse(argv):
    parser = argparse.ArgumentParser(prog="script/bench", description=DESCRIPTION, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORK", action="append", choices=[*WORKS, *SHORT],
                        help="only this work; may be given several times")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s, a shorter scan, memory as it is")
    parser.add_argument("--duration", metavar="S", type=seconds, help="seconds of one measurement, 5 without it")
    parser.add_argument("--rounds", metavar="N", type=count, help="rounds that medians are taken over, 3 without it")
    parser.add_argument("--dir", metavar="DIR", default="var", help="where to write: on the disk to measure; ./var without it")
    parser.add_argument("--json", metavar="FILE", help="all figures, those of each round too; - for standard output")
    plan = parser.parse_args(argv)
    plan.duration = plan.duration or (1 if plan.quick else 5)
    plan.rounds = plan.rounds or (1 if plan.quick else 3)
    wanted = [work for word in plan.only or WORKS for work in SHORT.get(word, [word])]
    plan.works = [work for work in WORKS if work in wanted]
    plan.dir = os.path.abspath(plan.dir)
    if re.search(r"[^\w./-]", plan.dir) or len(f"{plan.dir}/sh12345678/run/query.out") > SOCKET_PATH_MAX:
        parser.error(f"--dir {plan.dir}: too long, or odd characters in it")
    return plan


class Report:
    """Lines on standard output (on standard error when the JSON goes there), and what runs now on a terminal."""

    def __init__(self, out):
        self.out = out
        self.is_terminal = sys.stderr.isatty()

    def progress(self, text):
        if self.is_terminal:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()

    def show(self, text):
        self.progress("")
        print(text, file=self.out, flush=True)


def warm_up(plan, report):
    """Writes and removes a file; its rate in MB/s is a sign of what memory costs when it is used first."""
    stat = os.statvfs(plan.dir)
    size = min(int(plan.duration * WARM_RATE), stat.f_bavail * stat.f_frsize // 2)
    path = os.path.join(plan.dir, f"warm-{os.getpid()}.tmp")
    report.progress(f"writing {size >> 20} MiB once")
    start = time.monotonic()
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // len(PIECE)):
                file.write(PIECE)
            os.fsync(file.fileno())
    finally:
        if os.path.exists(path):
            os.unlink(path)
    rate = size / (time.monotonic() - start)
    report.show(f"a file of {size >> 20} MiB, written once and removed: {bytes_text(rate)}")
    return rate


def machine():
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    version = subprocess.run([os.path.join(BIN, "shanghaictl"), "version"], capture_output=True, check=True).stdout
    redis = shutil.which("redis-server")
    if redis:
        redis = subprocess.run([redis, "--version"], capture_output=True, check=True).stdout.decode().strip()
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "load_before": float(load),
            "version": version.decode().strip(), "redis": redis}


def measure(plan, report):
    works = Works(plan, report.progress, report.show)
    about = machine()
    result = {"machine": about, "duration_s": plan.duration, "rounds": plan.rounds, "works": {}}
    report.show(f"{about['version']}; {about['cpus']} CPUs, Linux {about['kernel']}, load {about['load_before']} before; "
                f"{plan.rounds} x {plan.duration:g} s, medians")
    if about["load_before"] > BUSY_LOAD:
        report.show("the machine was not idle: what else runs takes more from some works than from others")
    if not plan.quick:
        result["warm_bytes_per_s"] = warm_up(plan, report)
    for name in plan.works:
        result["works"][name] = WORKS[name](works)
    return result


class Child(subprocess.Popen):
    """SIGTERM in the middle of its start ends the driver only when there is somebody to kill."""
    starting = stopped = False

    def __init__(self, *args, **options):
        Child.starting = True
        try:
            super().__init__(*args, **options)
        finally:
            Child.starting = False
        if Child.stopped:
            self.kill()
            self.wait()
            sys.exit(1)


def on_term(*_):
    if Child.starting:
        Child.stopped = True
    else:
        sys.exit(1)


def main():
    plan = parse(sys.argv[1:])
    report = Report(sys.stderr if plan.json == "-" else sys.stdout)
    subprocess.Popen = Child  # subprocess.run's, too
    signal.signal(signal.SIGTERM, on_term)
    try:
        if any(name.startswith("redis") for name in plan.works):
            need_programs()
        os.makedirs(plan.dir, exist_ok=True)
        if plan.json and plan.json != "-":
            with open(plan.json, "a", encoding="ascii"):
                pass  # better now than after all is measured
        result = measure(plan, report)
        if plan.json == "-":
            print(json.dumps(result, indent=1))
        elif plan.json:
            with open(plan.json, "w", encoding="ascii") as file:
                json.dump(result, file, indent=1)
                file.write("\n")
    except (Missing, AssertionError, RuntimeError, OSError) as error:
        report.progress("")
        sys.exit(f"script/bench: {error}")
    except KeyboardInterrupt:
        report.progress("")
        sys.exit(1)


if __name__ == "__main__":
    main()
