"""The programs of examples/, run as docs/examples.md says."""
import os
import signal
import subprocess
import threading
import unittest

from cluster import TIMES, Cluster
from shanghai import BIN, wait_for


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(settings=TIMES).start()
        cls.addClassCleanup(cls.cluster.close)

    def env(self, name):
        return dict(os.environ, SHANGHAI_ENDPOINT=self.cluster[name].endpoint)

    def example(self, name, node, *args, code=0):
        done = subprocess.run([os.path.join(BIN, name), *args], env=self.env(node), capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def out(self, *args, **options):
        return self.example(*args, **options).stdout

    # ---- the bank account ----

    def wait_balance(self, node, account, balance):
        """Another run of the program knows nothing of the one before: it has what the node shows."""
        wait_for(lambda: self.out("bank_account", node, account, "balance") == f"{balance}\n", f"{node} to show {balance}")

    def test_an_account_is_what_its_events_come_to(self):
        self.out("bank_account", "n1", "ada", "deposit", "100")
        self.wait_balance("n1", "ada", 100)
        self.out("bank_account", "n1", "ada", "withdraw", "30")
        self.wait_balance("n1", "ada", 70)
        refused = self.example("bank_account", "n1", "ada", "withdraw", "1000", code=1)
        self.assertEqual(refused.stderr, "ada has 70 only\n")
        self.wait_balance("n2", "ada", 70)
        self.assertEqual(self.out("bank_account", "n1", "nobody", "balance"), "0\n")

    def test_an_account_is_never_overdrawn(self):
        self.out("bank_account", "n1", "bob", "deposit", "50")
        self.wait_balance("n1", "bob", 50)
        codes = []

        def withdraw():
            for _ in range(4):
                codes.append(subprocess.run([os.path.join(BIN, "bank_account"), "bob", "withdraw", "5"], env=self.env("n1"),
                                            capture_output=True, timeout=60, check=False).returncode)

        callers = [threading.Thread(target=withdraw) for _ in range(5)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        self.assertEqual(sorted(codes), [0] * 10 + [1] * 10)
        self.wait_balance("n1", "bob", 0)

    # ---- the counter ----

    def test_a_counter_takes_additions_on_all_nodes(self):
        self.assertEqual(self.out("replicated_counter", "n1", "visits", "1"), "1\n")
        for i in range(10):
            for name in self.cluster.nodes:
                self.out("replicated_counter", name, "visits", "-1" if i == 9 else "2")
        for name in self.cluster.nodes:
            wait_for(lambda name=name: self.out("replicated_counter", name, "visits") == "52\n", f"{name} to have all")

    # ---- the queue ----

    def consumer(self, node, share, *args):
        process = subprocess.Popen([os.path.join(BIN, "work_queue"), "work", str(share), *args], env=self.env(node),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def test_two_consumers_on_two_nodes_do_all_jobs(self):
        jobs = [f"job {i}" for i in range(60)]
        consumers = {0: self.consumer("n1", 0), 1: self.consumer("n2", 1)}
        done = []

        def collect(process):
            for line in process.stdout:
                done.append(line.rstrip("\n"))

        readers = [threading.Thread(target=collect, args=(process,)) for process in consumers.values()]
        for reader in readers:
            reader.start()
        self.out("work_queue", "n3", "put", *jobs[:40])
        wait_for(lambda: set(done) == set(jobs[:40]), "the first jobs")
        before = len(done)
        self.assertEqual(before, 40, "nothing was taken over: each once")
        # The consumer of the first share is lost; another one takes its place on another node.
        consumers[0].send_signal(signal.SIGKILL)
        consumers[0].wait()
        self.out("work_queue", "n3", "put", *jobs[40:])
        consumers[0] = self.consumer("n3", 0)
        readers.append(threading.Thread(target=collect, args=(consumers[0],)))
        readers[-1].start()
        wait_for(lambda: set(done) == set(jobs), "all jobs")
        # Who comes later takes the share away from who has it.
        late = self.consumer("n2", 0)
        self.assertEqual(consumers[0].wait(60), 1)
        self.assertIn("conflict", consumers[0].stderr.read())
        for process in (late, consumers[1]):
            process.kill()
            process.wait()
        for reader in readers:
            reader.join()

    # ---- the audit log ----

    def test_an_audit_log_tells_who_did_what(self):
        self.out("audit_log", "n1", "record", "ada", "opened the vault")
        self.out("audit_log", "n2", "record", "bob", "closed it")
        wait_for(lambda: len(self.out("audit_log", "n3", "show").splitlines()) == 2, "n3 to have both")
        self.assertRegex(self.out("audit_log", "n3", "show", "ada"), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ada +opened the vault\n$")
        self.assertEqual(self.out("audit_log", "n3", "show", "carol"), "")

    def test_how_they_are_called(self):
        for name, args in (("bank_account", ["ada"]), ("bank_account", ["ada", "deposit", "-5"]), ("replicated_counter", []),
                           ("work_queue", ["work", "7"]), ("work_queue", ["put"]), ("audit_log", ["record", "x"])):
            self.assertIn("usage: ", self.example(name, "n1", *args, code=2).stderr)

    def test_no_node_is_said(self):
        done = subprocess.run([os.path.join(BIN, "audit_log"), "show"], capture_output=True, text=True, timeout=90, check=False,
                              env=dict(os.environ, SHANGHAI_ENDPOINT="ipc:///nonexistent/query"))
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, "^show: ")


if __name__ == "__main__":
    unittest.main()
