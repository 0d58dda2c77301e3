"""What lies in etc/prometheus and etc/grafana: against Debian's promtool, and a Prometheus that scrapes three nodes."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request

from cluster import Cluster
from shanghai import free_port, wait_for

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RULES = os.path.join(TOP, "etc", "prometheus", "shanghai-rules.yml")
HAS_PROMETHEUS = shutil.which("prometheus") and shutil.which("promtool")
FROM_PROMETHEUS = {"up"}
SUFFIXES = ("_bucket", "_sum", "_count")


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def rule_expressions():
    """Of records and alerts."""
    return re.findall(r"^ +expr: (.*)$", read("etc", "prometheus", "shanghai-rules.yml"), re.M)


def panel_expressions():
    board = json.loads(read("etc", "grafana", "shanghai.json"))
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def promtool(*args, **options):
    return subprocess.run(["promtool", *args], capture_output=True, text=True, check=False, timeout=60, **options)


class Files(unittest.TestCase):
    def test_only_metrics_that_there_are_are_used(self):
        known = set(re.findall(r"^\| `(shanghai_\w+)`", read("docs", "metrics.md"), re.M))
        recorded = set(re.findall(r"^ +- record: (\S+)$", read("etc", "prometheus", "shanghai-rules.yml"), re.M))
        self.assertGreater(len(known), 20)
        self.assertGreater(len(recorded), 3)
        for expression in rule_expressions() + panel_expressions():
            plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
            for record in recorded:
                plain = plain.replace(record, "")
            for name in re.findall(r"shanghai_\w+", plain):
                base = next((name.removesuffix(s) for s in SUFFIXES if name.removesuffix(s) in known), name)
                self.assertIn(base, known, expression)

    @unittest.skipUnless(HAS_PROMETHEUS, "needs Debian's package prometheus")
    def test_rules_and_settings_are_good(self):
        for args in (("check", "rules", RULES), ("check", "config", os.path.join(TOP, "etc", "prometheus", "prometheus.yml")),
                     ("test", "rules", os.path.join(TOP, "tests", "prometheus", "rules-test.yml"))):
            done = promtool(*args)
            self.assertEqual(done.returncode, 0, (args, done.stdout, done.stderr))

    def test_every_alert_has_a_test_that_provokes_it(self):
        alerts = re.findall(r"^ +- alert: (\w+)$", read("etc", "prometheus", "shanghai-rules.yml"), re.M)
        tests = re.findall(r"^ +alertname: (\w+)$", read("tests", "prometheus", "rules-test.yml"), re.M)
        self.assertEqual(sorted(alerts), sorted(tests))

    def test_panels_have_titles_and_places_of_their_own(self):
        panels = json.loads(read("etc", "grafana", "shanghai.json"))["panels"]
        self.assertEqual(len({panel["title"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24)
            taken |= cells


@unittest.skipUnless(HAS_PROMETHEUS, "needs Debian's package prometheus")
class Scraped(unittest.TestCase):
    """A Prometheus of its own, with the files of etc/prometheus, every second."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.dir)
        self.cluster = Cluster()
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.port = free_port(1)
        self.start_prometheus([node["admin_port"] for node in self.cluster.members])

    def start_prometheus(self, ports):
        settings = read("etc", "prometheus", "prometheus.yml").replace("5s", "1s")
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        with open(os.path.join(self.dir, "prometheus.yml"), "w", encoding="ascii") as file:
            file.write(settings.replace('"127.0.0.1:9090"', targets))
        shutil.copy(RULES, self.dir)
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.dir}/prometheus.yml", f"--storage.tsdb.path={self.dir}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.terminate)

    def get(self, path, **arguments):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(arguments)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        try:
            return self.get("/api/v1/query", query=expression)["result"]
        except OSError:
            return []  # it is starting

    def test_three_nodes_answer_the_queries_of_rules_and_panels(self):
        wait_for(lambda: len(self.query('up{job="shanghai"} == 1')) == 3, "all three nodes to be scraped")
        n1 = self.cluster["n1"]
        n1.ctl("append", "-", input=b"".join(b"%d\n" % i for i in range(5000)))
        n1.ctl("append", "--ack", "all", "x")
        n1.ctl("kv", "put", "k", "v")
        n1.ctl("kv", "get", "k", check=False)
        n1.ctl("kv", "scan")
        wait_for(lambda: self.query("sum(shanghai_wal_entries_total) >= 5002"), "what was appended to be scraped")
        for expression in panel_expressions() + rule_expressions():
            whole = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            try:
                self.get("/api/v1/query", query=whole)
            except OSError as error:
                self.fail(f"{whole}: {error}")
        for expression in panel_expressions():
            whole = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            wait_for(lambda e=whole: self.query(e), f"an answer to {whole}")
        groups = wait_for(self.evaluated_rules, "all rules to be evaluated")
        self.assertEqual([rule for rule in groups if rule["health"] != "ok"], [])

    def evaluated_rules(self):
        rules = [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    def test_what_nodes_tell_is_well_formed(self):
        port = self.cluster.members[0]["admin_port"]

        def text():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    return answer.read().decode()
            except OSError:
                return ""
        found = wait_for(lambda: (lambda t: t if "shanghai_process_open_fds{service=\"querysvc\"}" in t else None)(text()),
                         "querysvc to have told")
        done = promtool("check", "metrics", input=found)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)


if __name__ == "__main__":
    unittest.main()
