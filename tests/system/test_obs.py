"""The admin API of obssvc: what it tells of the node, and what it takes orders for."""
import json
import os
import signal
import unittest

from admin import Admin
from cluster import Cluster
from shanghai import Node, SERVICES, free_port, process_exists, wait_for

TREE = ("supervisor:\n  intensity: 1000\n  backoff: false\n  children:\n"
        + "".join(f"    - {{service: {name}, watchdog: 5m}}\n" for name in SERVICES))  # who is stopped stays so
TOKEN = "correct horse battery staple"


def write_token(node, text=TOKEN + "\n", mode=0o600):
    path = os.path.join(node.dir, "token")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


class Telling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        cls.admin = Admin(cls.node)
        cls.admin.json("/health")

    def check_error(self, answer, status, code):
        error = json.loads(answer.body)["error"]
        self.assertEqual((answer.status, error["code"]), (status, code), error)
        self.assertTrue(error["message"])
        self.assertIsInstance(error["details"], dict)
        return error

    def test_it_is_alive_and_ready(self):
        self.assertEqual(self.admin.json("/health"), {"status": "alive"})
        self.assertEqual(self.admin.json("/ready"),
                         {"status": "ready", "checks": {"querysvc": "ok", "appends": "ok", "member": "ok"}})

    def test_nodes_and_replicas_are_what_shanghaictl_prints(self):
        for what in ("nodes", "replicas"):
            def same(what=what):
                printed = self.node.ctl("--format", "json", what).stdout
                answer = self.admin.get(f"/api/v1/{what}")
                return answer.status == 200 and answer.body == printed
            wait_for(same, f"{what}, byte for byte")

    def test_status_is_what_shanghaictl_prints_and_who_it_is(self):
        def same():
            told, printed = self.admin.json("/api/v1/status"), self.node.json("status")
            self.assertLessEqual(set(printed), set(told))
            self.assertLessEqual({"now_ms", "obssvc_since_ms", "group"}, set(told))
            self.assertGreaterEqual(told["now_ms"], told["obssvc_since_ms"])
            moving = ("uptime_ms", "clients", "commits")
            return all(told[key] == printed[key] for key in printed if key not in moving)
        wait_for(same, "the same status")

    def test_services_are_the_tree_and_the_obituaries(self):
        def same():
            told = self.admin.json("/api/v1/services")
            rows = [dict(row, uptime_ms=0) for row in told["services"]]
            printed = [dict(row, uptime_ms=0) for row in self.node.json("svc", "tree")]
            return rows == printed and told["obituaries"] == self.node.json("svc", "obituary", "--limit", "20")
        wait_for(same, "the same tree")

    def test_kept_answers_tell_their_age(self):
        for path in ("status", "nodes", "replicas", "services"):
            self.admin.json(f"/api/v1/{path}")
            answer = self.admin.get(f"/api/v1/{path}")
            self.assertEqual(answer.status == 200, answer.headers["X-Age-Ms"] is not None)
            self.assertLess(int(answer.headers["X-Age-Ms"] or 0), 5000)

    def test_metrics_by_prefix(self):
        wait_for(lambda: self.admin.series("shanghai_node_info"), "what the node is")
        told = self.admin.json("/api/v1/metrics?name=shanghai_node_info")
        self.assertGreater(told["now_ms"], 0)
        self.assertEqual([dict(s, labels=s["labels"]["node"]) for s in told["series"]],
                         [{"name": "shanghai_node_info", "kind": "gauge", "labels": "n1", "value": 1}])
        time = wait_for(lambda: self.admin.json("/api/v1/metrics?name=shanghai_http_request_seconds")["series"], "times")
        self.assertEqual({*time[0]}, {"name", "kind", "labels", "count", "sum", "p50", "p99"})
        self.assertEqual(self.admin.json("/api/v1/metrics?name=nothing")["series"], [])

    def test_obssvc_tells_of_services(self):
        each = {(("service", name),) for name in SERVICES}
        wait_for(lambda: set(self.admin.series("shanghai_service_up")) == each, "all services")
        wait_for(lambda: set(self.admin.series("shanghai_service_restarts_total")) == each, "all services")
        self.assertGreater(self.admin.series("shanghai_supervisor_uptime_seconds")[()], 0)
        levels = {(("level", level),) for level in ("debug", "info", "warn", "error")}
        self.assertEqual(set(self.admin.series("shanghai_events_total")), levels)
        self.assertEqual(self.admin.series("shanghai_events_lost_total"), {(): 0})
        self.assertIn("shanghai_service_up{service=\"walsvc\"}", self.admin.get("/metrics").body.decode())

    def test_the_history_has_a_point_each_second(self):
        def points():
            return self.admin.json("/api/v1/history")["points"]
        wait_for(lambda: len(points()) >= 3, "points")
        told = self.admin.json("/api/v1/history")
        self.assertEqual(told["each_ms"], 1000)
        self.assertEqual(told["series"], ["appends_per_s", "bytes_per_s", "commit_p50_s", "commit_p99_s", "append_p50_s",
                                          "append_p99_s", "lag_s", "view_lag_entries", "gets_per_s"])
        times = [point[0] for point in told["points"]]
        self.assertEqual(times, sorted(times))
        self.assertEqual({len(point) for point in told["points"]}, {1 + len(told["series"])})
        later = self.admin.json(f"/api/v1/history?after={times[1]}")["points"]
        self.assertEqual(later[0][0], times[2])

    def test_events_by_number(self):
        self.admin.wait_event("node_founded", node="n1")
        told = self.admin.json("/api/v1/events")
        numbers = [event["id"] for event in told["events"]]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertEqual((told["lost"], told["last"] >= numbers[-1]), (0, True))
        self.assertEqual({*told["events"][0]}, {"id", "time_ms", "service", "level", "kind", "text", "fields"})
        one = self.admin.json(f"/api/v1/events?after={numbers[0] - 1}&most=1")
        self.assertEqual(one["events"], told["events"][:1])
        self.assertEqual(self.admin.json(f"/api/v1/events?after={one['last'] + 1000}")["events"], [])

    def test_logs_are_what_the_supervisor_keeps(self):
        lines = self.admin.json("/api/v1/logs?service=walsvc&most=5000")["lines"]
        self.assertEqual({line["service"] for line in lines}, {"walsvc"})
        self.assertIn("ready", {line["msg"] for line in lines})
        lines = self.admin.json("/api/v1/logs?most=5000")["lines"]
        self.assertLessEqual(set(SERVICES), {line["service"] for line in lines})
        times = [line["time"] for line in lines]
        self.assertEqual(times, sorted(times))
        two = self.admin.json("/api/v1/logs?most=2")["lines"]
        self.assertEqual(len(two), 2)
        self.assertGreaterEqual(two[0]["time"], times[-2])
        self.assertEqual({line["level"] for line in self.admin.json("/api/v1/logs?level=warn&most=5000")["lines"]}
                         - {"warn", "error"}, set())

    def test_lines_of_a_request_are_found_by_its_correlation_id(self):
        self.admin.ask("POST", "/api/v1/shutdown", headers={"X-Correlation-Id": "c0ffee"})

        def lines():
            return self.admin.json("/api/v1/logs?correlation_id=c0ffee")["lines"]
        found = wait_for(lines, "the request's lines")
        self.assertEqual({line["correlation_id"] for line in found}, {"0000000000c0ffee"})
        self.assertIn("an order over HTTP was refused", {line["msg"] for line in found})

    def test_what_cannot_be_asked_is_named(self):
        for path, name in (("events?after=x", "after"), ("events?most=99999", "most"), ("history?after=-1", "after"),
                           ("logs?level=loud", "level"), ("logs?correlation_id=xyz", "correlation_id"),
                           ("logs?correlation_id=12345678901234567", "correlation_id"), ("logs?most=1e3", "most"),
                           ("events?after=99999999999999999999", "after")):
            error = self.check_error(self.admin.get(f"/api/v1/{path}"), 400, "bad_request")
            self.assertEqual(error["details"], {"argument": name}, path)
        self.check_error(self.admin.get("/api/v1/logs?service=nobody"), 404, "not_found")
        self.check_error(self.admin.get("/api/v2/status"), 404, "not_found")
        for method, path, allowed in (("POST", "/health", "GET, HEAD"), ("DELETE", "/api/v1/nodes", "GET, HEAD, POST"),
                                      ("GET", "/api/v1/shutdown", "POST"), ("PUT", "/metrics", "GET, HEAD")):
            answer = self.admin.ask(method, path)
            self.check_error(answer, 405, "method_not_allowed")
            self.assertEqual(answer.headers["Allow"], allowed)

    def test_nothing_is_ordered_without_a_token_in_the_topology(self):
        for path in ("/api/v1/nodes", "/api/v1/shutdown"):
            answer = self.admin.ask("POST", path, {}, {"Authorization": "Bearer x"})
            self.assertIn("no token is configured", self.check_error(answer, 403, "forbidden")["message"])


class Happening(unittest.TestCase):
    """What dies, hangs and comes back."""

    def setUp(self):
        self.node = Node(supervisor=TREE)
        self.addCleanup(self.node.close)
        self.node.start()
        self.admin = Admin(self.node)

    def test_a_death_is_an_event_an_obituary_and_counted(self):
        self.admin.json("/api/v1/services")
        pid = self.node.kill("walsvc")
        event = self.admin.wait_event("service_died", service="walsvc", pid=pid)
        self.assertEqual((event["level"], event["fields"]["cause"]), ("warn", "signal 9 (SIGKILL)"))
        self.admin.wait_event("service_running", service="walsvc", pid=self.node.pid("walsvc"))
        told = self.admin.wait("/api/v1/services", lambda told: told["obituaries"], "the obituary")
        self.assertEqual((told["obituaries"][0]["service"], told["obituaries"][0]["pid"]), ("walsvc", pid))
        death = (("service", "walsvc"), ("cause", "signal 9 (SIGKILL)"))
        wait_for(lambda: self.admin.series("shanghai_service_deaths_total").get(death) == 1, "the death to be counted")
        wait_for(lambda: self.admin.series("shanghai_service_restarts_total").get((("service", "walsvc"),)) == 1,
                 "the restart to be counted")

    def test_a_querysvc_that_hangs_is_unavailable(self):
        self.admin.json("/api/v1/status")
        self.node.kill("querysvc", signal.SIGSTOP)
        for path in ("status", "nodes", "replicas"):
            self.assertEqual(self.admin.json(f"/api/v1/{path}", 503)["error"]["code"], "unavailable")
        self.admin.json("/api/v1/services")  # the supervisor is well
        self.node.kill("querysvc", signal.SIGCONT)
        self.admin.json("/api/v1/status")

    def test_an_absent_querysvc_is_named(self):
        self.admin.json("/api/v1/status")
        pid = self.node.pid("querysvc")
        self.node.ctl("svc", "stop", "querysvc")
        wait_for(lambda: not process_exists(pid), "the end of querysvc")
        for path, service in (("status", "querysvc"), ("nodes", "membersvc"), ("replicas", "replsvc")):
            error = self.admin.json(f"/api/v1/{path}", 503)["error"]
            self.assertEqual((error["code"], error["details"]), ("unavailable", {"service": service}))
        error = self.admin.json("/ready", 503)["error"]
        self.assertEqual((error["code"], set(error["details"])), ("not_ready", {"querysvc", "appends", "member"}))
        self.assertEqual(self.admin.json("/health"), {"status": "alive"})
        self.admin.wait_event("service_stopped", service="querysvc")
        wait_for(lambda: self.admin.series("shanghai_service_up").get((("service", "querysvc"),)) == 0, "its absence")
        self.node.ctl("svc", "start", "querysvc")
        self.admin.json("/api/v1/status")
        self.admin.json("/ready")

    def test_not_ready_without_walsvc(self):
        self.admin.json("/ready")
        self.node.ctl("svc", "stop", "walsvc")
        self.admin.wait_event("service_stopped", service="walsvc")

        def named():
            return self.admin.json("/ready", 503)["error"]["details"].get("appends") == "walsvc does not answer"
        wait_for(named, "walsvc to be named")
        self.node.ctl("svc", "start", "walsvc")
        self.admin.json("/ready")

    def test_a_supervisor_that_hangs_is_unavailable(self):
        self.admin.json("/api/v1/services")
        self.node.process.send_signal(signal.SIGSTOP)
        try:
            error = self.admin.json("/api/v1/services", 503)["error"]
            self.assertEqual((error["code"], error["details"]), ("unavailable", {"service": "shanghaid"}))
            self.admin.json("/api/v1/status")  # querysvc is well
        finally:
            self.node.process.send_signal(signal.SIGCONT)
        self.admin.json("/api/v1/services")

    def test_what_happened_while_obssvc_was_away_is_told(self):
        self.admin.json("/api/v1/services")
        pid = self.node.pid("obssvc")
        self.node.ctl("svc", "stop", "obssvc")
        wait_for(lambda: not process_exists(pid), "the end of obssvc")
        killed = self.node.kill("replsvc")
        wait_for(lambda: self.node.pid("replsvc") != killed, "another replsvc")
        self.node.ctl("svc", "start", "obssvc")
        self.admin.wait_event("service_died", service="replsvc", pid=killed)
        self.admin.wait_event("node_founded", node="n1")


class Members(unittest.TestCase):
    def test_nodes_that_go_and_come_are_events(self):
        cluster = Cluster(2)
        self.addCleanup(cluster.close)
        cluster.start()
        admin = Admin(cluster["n1"])
        admin.wait_event("node_up", node="n2")
        cluster["n2"].kill_all()
        admin.wait_event("node_suspect", node="n2")
        down = admin.wait_event("node_down", node="n2")
        self.assertEqual((down["service"], down["level"]), ("membersvc", "error"))
        admin.wait("/api/v1/nodes", lambda told: told["nodes"][1]["status"] == "down", "n2 to be down")
        cluster["n2"].start()
        wait_for(lambda: len(admin.events("node_up", node="n2")) > 1 or admin.events("node_restarted", node="n2"),
                 "n2 to be back")


class Orders(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.settings = f"admin_token_file: {self.node.dir}/token\n"
        self.row = {"id": "n1", "host": "127.0.0.1", "port": self.node.port, "admin_port": self.node.port + 5}
        self.node.write_config([self.row])
        self.node.start()
        self.admin = Admin(self.node, TOKEN)
        self.admin.json("/health")

    def order(self, status, code=None, token=TOKEN, **body):
        answer = self.admin.ask("POST", "/api/v1/nodes", body,
                                {"Authorization": f"Bearer {token}"} if token is not None else {"Authorization": ""})
        told = json.loads(answer.body)
        self.assertEqual((answer.status, told.get("error", {}).get("code")), (status, code), told)
        return told

    def test_tokens(self):
        leave = {"action": "leave", "id": "n9"}
        self.order(403, "token_unreadable", **leave)
        write_token(self.node, "\nsecond line\n")
        self.order(403, "token_unreadable", **leave)
        for mode in (0o640, 0o604, 0o622):
            write_token(self.node, mode=mode)
            self.order(403, "token_exposed", **leave)
        write_token(self.node)
        for wrong in (None, "", TOKEN[:-1], TOKEN + "x", TOKEN * 2, "x" * len(TOKEN)):
            self.order(401, "unauthenticated", token=wrong, **leave)
        self.order(404, "not_member", **leave)
        write_token(self.node, "another\n")  # counts at once
        self.order(401, "unauthenticated", **leave)
        self.order(404, "not_member", token="another", **leave)

    def test_join_and_leave(self):
        write_token(self.node)
        port = free_port(6)
        told = self.order(200, action="join", id="n2", host="127.0.0.1", port=port, admin_port=port + 5)
        self.assertEqual(told, {"id": "n2", "generation": told["generation"]})
        self.admin.wait_event("node_joining", node="n2")
        self.order(409, "already_member", action="join", id="n2", host="127.0.0.1", port=port)
        self.order(409, "conflict", action="join", id="n3", host="127.0.0.1", port=port)
        left = self.order(200, action="leave", id="n2")
        self.assertEqual(left, {**told, "log": None, "only_first": None, "only_last": None})
        self.order(404, "not_member", action="leave", id="n2")
        self.admin.wait_event("node_left", node="n2")

    def test_bad_bodies_are_named(self):
        write_token(self.node)
        for body in (b"", b"[]", b"{", b"{\"id\":\"\xff\"}", b"{\"action\":\"leave\",\"id\":\"n2\"} x", b"[" * 60000):
            answer = self.admin.ask("POST", "/api/v1/nodes", body)
            self.assertEqual((answer.status, json.loads(answer.body)["error"]["code"]), (400, "bad_request"), body[:40])
        good = {"action": "join", "id": "n2", "host": "h", "port": 1}
        for name, value in (("action", "dance"), ("action", None), ("id", ""), ("id", 7), ("id", "x" * 65), ("port", "1"),
                            ("port", 65536), ("port", -1), ("replace", 1), ("host", ["h"]), ("more", 1)):
            told = self.order(400, "bad_request", **{**good, name: value})
            self.assertEqual(told["error"]["details"], {"argument": name})
        self.order(400, "bad_request", action="join", id="n2")
        self.order(400, "bad_request", action="join", id="a b", host="127.0.0.1", port=4000)

    def test_shutdown(self):
        write_token(self.node)
        answer = self.admin.ask("POST", "/api/v1/shutdown", headers={"Authorization": "Bearer x"})
        self.assertEqual((answer.status, answer.headers["WWW-Authenticate"]), (401, "Bearer"))
        self.assertIsNone(self.node.process.poll())
        answer = self.admin.ask("POST", "/api/v1/shutdown")
        self.assertEqual((answer.status, json.loads(answer.body)), (202, {"done": True, "text": "the node is stopping"}))
        self.assertEqual(self.node.process.wait(60), 0)
        self.assertEqual(self.node.stop(), 0)


if __name__ == "__main__":
    unittest.main()
