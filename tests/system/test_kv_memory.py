"""Memory: of a node that has nothing to do, and of querysvc with many keys on disk. Pages of files aside."""
import os
import random
import subprocess
import unittest

from shanghai import BIN, Node, wait_for

KEYS = 10_000_000 if os.environ.get("SHANGHAI_LONG") else 200_000
MIXED = 0x9e3779b97f4a7c15
NODE_MOST, QUERY_MOST = 64 << 10, 128 << 10  # KiB


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def is_instrumented():
    """A sanitizer's own memory is no measure."""
    out = subprocess.run(["nm", "-D", os.path.join(BIN, "querysvc")], capture_output=True, check=False).stdout
    return b"__asan" in out or b"__tsan" in out


@unittest.skipIf(is_instrumented(), "a sanitizer's memory")
class Memory(unittest.TestCase):
    def test_a_node_that_has_nothing_to_do(self):
        with Node() as node:
            node.start()
            for i in range(10):
                node.ctl("kv", "txn", input="\n".join(f"put k{i}.{j} {'x' * 100}" for j in range(1000)).encode())
            wait_for(lambda: len(node.json("kv", "scan", "--keys-only")) == 10000, "all keys")
            pids = [row["pid"] for row in node.tree().values() if row.get("pid")]
            kib = sum(map(anonymous_kib, {node.process.pid, *pids}))
            print(f"figure: a node with 10,000 keys and nothing to do: {kib / 1024:.1f} MiB", flush=True)
            self.assertLess(kib, NODE_MOST)

    def test_querysvc_with_many_keys(self):
        with Node() as node:
            out = subprocess.run([os.path.join(BIN, "view_fill"), os.path.join(node.data, "view"), str(KEYS)],
                                 capture_output=True, check=True, timeout=1000)
            node.start()
            wait_for(lambda: node.try_json("kv", "scan", "--count", "1"), "the view to be open")
            rng = random.Random(3)
            for _ in range(40):
                keys = [f"key:{rng.randrange(1, KEYS) * MIXED % 2**64:016x}" for _ in range(1000)]
                self.assertEqual(len(node.json("kv", "get", *keys)), 1000)
            node.ctl("--format", "raw", "kv", "scan", "--count", "200000")
            kib = anonymous_kib(node.pid("querysvc"))
            print(f"figure: querysvc with {KEYS:,} keys on disk: {kib / 1024:.1f} MiB; "
                  f"while they were written {int(out.stdout) / 1024:.1f} MiB", flush=True)
            self.assertLess(kib, QUERY_MOST)
            self.assertLess(int(out.stdout), QUERY_MOST)


if __name__ == "__main__":
    unittest.main()
