"""The admin HTTP API of a node, as a client on its host sees it."""
import http.client
import json
from collections import namedtuple

from shanghai import wait_for

Answer = namedtuple("Answer", "status headers body")


class Admin:
    """Of a node of shanghai.py: its admin_port is the one behind its five."""

    def __init__(self, node, token=None):
        self.node, self.token = node, token

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """Any answer, also one that says no. OSError: there was none."""
        headers = dict(headers or {})
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.node.port + 5, timeout=timeout)
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def json(self, path, status=200):
        """Waits until the path answers with that status: what it tells may not be known yet."""
        def answered():
            try:
                answer = self.get(path)
            except (OSError, http.client.HTTPException):
                return None
            return answer if answer.status == status else None
        return json.loads(wait_for(answered, f"{status} at {path}").body)

    def wait(self, path, condition, what, timeout=60):
        """Waits until what the path answers with meets the condition, and returns that."""
        def met():
            try:
                answer = self.get(path)
            except (OSError, http.client.HTTPException):
                return None
            value = json.loads(answer.body) if answer.status == 200 else None
            return (value,) if value is not None and condition(value) else None
        return wait_for(met, what, timeout, 0.05)[0]

    def events(self, kind, **fields):
        """Those of that kind with these fields, the oldest first."""
        events = self.json("/api/v1/events")["events"]
        return [e for e in events if e["kind"] == kind and fields.items() <= e["fields"].items()]

    def wait_event(self, kind, **fields):
        return wait_for(lambda: self.events(kind, **fields), f"an event {kind} with {fields}", 60, 0.05)[0]

    def series(self, name):
        """{labels: value}; labels as a tuple of pairs."""
        series = self.json(f"/api/v1/metrics?name={name}")["series"]
        return {tuple(s["labels"].items()): s.get("value") for s in series if s["name"] == name}
