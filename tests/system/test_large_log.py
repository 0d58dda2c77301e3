"""Start and memory with a log of one segment and with a large one: 10 GiB with SHANGHAI_LONG, else 1 GiB. Times are
printed, not asserted."""
import json
import os
import socket
import statistics
import subprocess
import time
import unittest

from shanghai import BIN, SERVICES, Node

LARGE_BYTES = (10 << 30) if os.environ.get("SHANGHAI_LONG") else (1 << 30)
STARTS = 5
MEMORY_MORE_KIB = 1024  # 10 GiB are 170 segments
VIEW_MORE_KIB = 32 << 10  # the view applies the log meanwhile: RocksDB's buffers, whatever the log's size


def anonymous_kib(pid):
    """PSS without pages of files."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def make_log(node, size):
    done = subprocess.run([os.path.join(BIN, "make_log"), node.data, str(size)], capture_output=True, check=True,
                          timeout=1200)
    return json.loads(done.stdout)


def forget_pages(folder):
    """A start reads from the disk, as after a boot."""
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class LargeLog(unittest.TestCase):
    def start_ms(self, node):
        """From the fork of shanghaid to its word that all services are ready."""
        path = os.path.join(node.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(60)
            node.env["NOTIFY_SOCKET"] = path
            began = time.monotonic()
            node.spawn()
            while b"READY=1" not in notify.recv(4096):
                pass
            took = time.monotonic() - began
        os.unlink(path)
        del node.env["NOTIFY_SOCKET"]
        node.wait_ready()
        return took * 1000

    def opened_ms(self, node):
        lines = node.log_lines('"log opened"')
        return [json.loads(line)["took_ms"] for line in lines]

    def look(self, size):
        """Memory by service after a start and some reading; prints the times."""
        with Node() as node:
            made = make_log(node, size)
            folder = node.log_dir()
            segments = sum(name.endswith(".seg") for name in os.listdir(folder))
            times = []
            for _ in range(STARTS):
                forget_pages(folder)
                times.append(self.start_ms(node))
                if len(times) < STARTS:
                    self.assertEqual(node.stop(), 0)
            for lsn in (1, made["lsn"] // 2, made["lsn"] - 1):
                node.ctl("read", "--from", str(lsn), "--count", "1")
            node.ctl("read", "--since", "2000d", "--count", "1")
            node.ctl("append", "on")
            self.assertEqual(node.json("status")["segments"], segments)
            memory = {name: anonymous_kib(node.pid(name)) for name in SERVICES}
            print(f"\nfigure: {segments} segments, {made['end'] / (1 << 30):.2f} GiB: shanghaid's start to all ready, median "
                  f"{statistics.median(times):.0f} ms, max {max(times):.0f} ms of {STARTS}; of it walsvc's opening of the "
                  f"log {statistics.median(self.opened_ms(node)):.0f} ms; not files, MiB: "
                  + ", ".join(f"{name} {kib / 1024:.1f}" for name, kib in memory.items()), flush=True)
            return memory

    def test_start_and_memory_do_not_depend_on_the_size(self):
        one = self.look(0)
        large = self.look(LARGE_BYTES)
        for name in SERVICES:
            more = VIEW_MORE_KIB if name == "querysvc" else MEMORY_MORE_KIB
            self.assertLess(large[name], one[name] + more, name)


if __name__ == "__main__":
    unittest.main()
