"""A server that plays obssvc for its page: the files of obssvc/page, and the answers that a test gives it.

For what real nodes do not say when asked: hostile texts, old answers, silence."""
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from browser import TOP

PAGE = os.path.join(TOP, "obssvc", "page")
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}
SERIES = ("appends_per_s", "bytes_per_s", "commit_p50_s", "commit_p99_s", "append_p50_s", "append_p99_s", "lag_s",
          "view_lag_entries", "gets_per_s")


def node_row(name, **other):
    log = f"{name}-log"
    return {"id": name, "status": "up", "since_ms": 0, "heartbeat_age_ms": None, "host": "127.0.0.1", "port": 4000,
            "admin_port": 4005, "group": "default", "log": log, "self": name == "n1", "unreachable": False,
            "clock_offset_ms": 0, "clock_drift": False, "watermarks": [{"log": log, "lsn": 7, "end": 700}], **other}


def service_row(name, **other):
    return {"name": name, "kind": "service", "parent": "root", "depth": 1, "state": "running", "pid": 17, "restarts": 0,
            "uptime_ms": 5000, "last_exit": "", "status": "", **other}


def event_row(number, text, **other):
    return {"id": number, "time_ms": 1_800_000_000_000 + number, "service": "walsvc", "level": "info", "kind": "told",
            "text": text, "fields": {}, **other}


class Stub(ThreadingHTTPServer):
    """answers: by path, each {key: value} of the JSON; ages: by path, X-Age-Ms; failing: by path, a 503's message."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        now = int(time.time() * 1000)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.silent = False
        self.ages, self.failing = {}, {}
        self.events, self.events_since_ms, self.lost = [], now, 0
        self.points = []
        self.answers = {
            "status": {"node": "n1", "cluster": "test", "group": "default", "version": "0", "health": "healthy",
                       "reasons": [], "writes": "taken", "durable_lsn": 7, "disk_bytes": 1, "segments": 1, "clients": 1,
                       "uptime_ms": 60000},
            "nodes": {"nodes": [node_row("n1"), node_row("n2")]},
            "replicas": {"node": "n1", "log": "n1-log", "durable_lsn": 7, "fetched_back": False, "followed": [],
                         "followers": []},
            "services": {"services": [service_row("walsvc"), service_row("querysvc")], "obituaries": []}}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def answer(self, path, arguments):
        """A name of the API's."""
        now = int(time.time() * 1000)
        if path == "history":
            after = int(arguments.get("after", 0))
            return {"now_ms": now, "each_ms": 1000, "series": SERIES, "points": [p for p in self.points if p[0] > after]}
        if path == "events":
            after = int(arguments["after"])
            events = [event for event in self.events if event["id"] > after][:int(arguments["most"])]
            return {"events": events, "last": self.events[-1]["id"] if self.events else 0, "lost": self.lost,
                    "since_ms": self.events_since_ms}
        return {"now_ms": now, **self.answers[path]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def do_GET(self):
        if self.server.silent:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        if path.startswith("/api/v1/"):
            self.give_answer(path.removeprefix("/api/v1/"), dict(part.split("=") for part in query.split("&") if part))
        else:
            self.give_file("index.html" if path == "/" else path.removeprefix("/page/"))

    def give(self, status, content_type, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def give_file(self, name):
        with open(os.path.join(PAGE, os.path.basename(name)), "rb") as file:
            self.give(200, TYPES[name.rsplit(".", 1)[1]], file.read())

    def give_answer(self, path, arguments):
        if path in self.server.failing:
            error = {"error": {"code": "unavailable", "message": self.server.failing[path], "details": {}}}
            self.give(503, "application/json", json.dumps(error).encode())
            return
        age = self.server.ages.get(path, 0)
        self.give(200, "application/json", json.dumps(self.server.answer(path, arguments)).encode(),
                  [("X-Age-Ms", str(age))])
