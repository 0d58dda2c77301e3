"""What a node tells at /metrics, and what docs/metrics.md declares."""
import json
import os
import re
import urllib.error
import urllib.request

LINE = re.compile(r'([a-z_:0-9]+)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "metrics.md")


def fetch(node, path):
    """The answer's bytes; None: obssvc does not answer now."""
    try:
        with urllib.request.urlopen(f"http://{node.host}:{node.port + 5}{path}", timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError:
        raise
    except OSError:
        return None


class Metrics:
    """One answer. series: {name: [(labels, value)]}, those of a histogram with _bucket, _sum and _count; kinds: {metric:
    kind}."""

    def __init__(self, text):
        self.series, self.kinds = {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line[7:].split()
                assert name not in self.kinds, name
                self.kinds[name] = kind
            elif not line.startswith("#"):
                name, labels, value = LINE.fullmatch(line).groups()
                self.series.setdefault(name, []).append((dict(LABEL.findall(labels or "")), float(value)))

    def value(self, name, **labels):
        """Of all series with these labels, among others, the sum; None: there is none."""
        values = [value for has, value in self.series.get(f"shanghai_{name}", []) if labels.items() <= has.items()]
        return sum(values) if values else None


def metrics_of(node):
    """An answer without anything in it while obssvc is away."""
    return Metrics((fetch(node, "/metrics") or b"").decode())


def declared():
    """{metric: (kind, the service that keeps it)}"""
    with open(DOCUMENT, encoding="ascii") as file:
        rows = [[cell.strip() for cell in line.split("|")] for line in file if line.startswith("| `shanghai_")]
    return {row[1].strip("`"): (row[2], row[5]) for row in rows}


def events_of(node):
    """Kinds of the events that obssvc has; None while it is away."""
    answer = fetch(node, "/api/v1/events?most=1000")
    return None if answer is None else [event["kind"] for event in json.loads(answer)["events"]]
