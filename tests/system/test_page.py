"""The dashboard in a browser: of three real nodes, and of a server that plays what real nodes do not say when asked."""
import re
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from browser import DESKTOP, PHONE, Browser
from cluster import Cluster
from page_stub import Stub, event_row, node_row, service_row
from shanghai import SERVICES, wait_for

HOSTILE = "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>&amp;"

# [contrast, text] of each text that can be seen and has less than 4.5:1 on its ground.
FAINT = """
const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
function ground(element) {
    for (let e = element; e !== null; e = e.parentElement) {
        const color = numbers(getComputedStyle(e).backgroundColor);
        if (color.length === 3 || color[3] > 0)
            return color;
    }
    return [255, 255, 255];
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.textContent.trim() === "" || element.getClientRects().length === 0)
        continue;
    const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5)
        faint.push([contrast, walker.currentNode.textContent]);
}
return faint;
"""

# What a screen reader cannot name, or a keyboard cannot reach.
UNNAMED = """
const name_of = (e) => e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent
    ?? document.getElementById(e.getAttribute("aria-labelledby"))?.textContent ?? "";
const unnamed = [...document.querySelectorAll("section, nav, select, .scroll, [role=slider], ol, ul")]
    .filter((e) => name_of(e).trim() === "").map((e) => e.outerHTML.slice(0, 80));
const headless = [...document.querySelectorAll("th")].filter((e) => e.scope === "").map((e) => e.outerHTML);
const unreached = [...document.querySelectorAll("*")]
    .filter((e) => /auto|scroll/.test(getComputedStyle(e).overflowY) && e.tabIndex < 0
        && e !== document.documentElement && e.tagName !== "NAV").map((e) => e.outerHTML.slice(0, 80));
return [...unnamed, ...headless, ...unreached];
"""


class WithBrowser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.browser.look()

    def wait_for(self, selector, wanted, timeout=60):
        self.browser.wait_text(selector, wanted, timeout)

    def assert_quiet(self, url):
        """No complaint on the console, and no request to elsewhere."""
        self.assertEqual(self.browser.complaints(), [])
        elsewhere = [asked for asked in self.browser.requested if not asked.startswith((url, "data:image/svg+xml,"))]
        self.assertEqual(elsewhere, [])
        self.assertIn(f"{url}api/v1/status", self.browser.requested)

    def assert_still(self):
        """Nothing was moved up or down since the page was shown, or this was last asked."""
        jumps = self.browser.jumps()
        self.assertLess(sum(share for share, _ in jumps), 0.005, jumps)


class Played(WithBrowser):
    """By a server that a test tells what to say."""

    def setUp(self):
        super().setUp()
        self.stub = Stub()
        self.addCleanup(self.stub.close)
        self.addCleanup(self.browser.driver.get, "about:blank")  # asks no more

    def open(self):
        self.browser.open(self.stub.url)
        self.wait_for("#freshness", "Live")

    def test_texts_are_never_markup(self):
        stub = self.stub
        died = {"service": HOSTILE, "time_ms": 1, "pid": 1, "cause": HOSTILE, "uptime_ms": 1, "lines": [HOSTILE]}
        stub.answers["status"].update(reasons=[HOSTILE], health=HOSTILE, node=HOSTILE, version=HOSTILE)
        stub.answers["services"] = {"services": [service_row(HOSTILE, state=HOSTILE, status=HOSTILE, last_exit=HOSTILE)],
                                    "obituaries": [died, died]}
        stub.answers["nodes"] = {"nodes": [node_row(HOSTILE, status=HOSTILE, group=HOSTILE, host=HOSTILE)]}
        stub.events.append(event_row(1, HOSTILE, service=HOSTILE, level=HOSTILE, kind=HOSTILE, fields={HOSTILE: HOSTILE}))
        stub.failing["replicas"] = HOSTILE
        self.open_in_part()
        for selector in ("#reasons", "#health", "#identity", "#figures", "#tree", "#obituary-head", "#obituary-lines",
                         "#obituary-others", "#members", "#event-list", "[data-of=replicas]"):
            self.wait_for(selector, HOSTILE)
        self.assertEqual(self.browser.js("return [window.hurt ?? null, document.querySelectorAll('main img').length]"),
                         [None, 0])

    def open_in_part(self):
        self.browser.open(self.stub.url)
        self.wait_for("#freshness", "Partly stale")

    def test_silence_is_told_and_ends(self):
        self.open()
        self.stub.silent = True
        self.wait_for("#freshness", "Stale: no answer since")
        self.assertEqual(self.browser.js("return document.querySelectorAll('section.stale').length"), 6)
        self.assertIn("stale", self.browser.driver.title)
        self.stub.silent = False
        self.wait_for("#freshness", "Live")
        wait_for(lambda: not self.browser.js("return document.querySelectorAll('section.stale').length"), "all to be fresh")
        self.assert_still()

    def test_what_is_old_is_told_where_it_stands(self):
        self.stub.ages["services"] = 60000
        self.stub.failing["replicas"] = "querysvc does not answer"
        self.open_in_part()
        self.wait_for("[data-of=services]", "1 min old")
        self.wait_for("[data-of=replicas]", "querysvc does not answer")
        self.assertEqual(self.browser.js("return [...document.querySelectorAll('section.stale')].map((e) => e.id)"),
                         ["services", "replication"])
        del self.stub.ages["services"], self.stub.failing["replicas"]
        self.wait_for("#freshness", "Live")

    def test_events_come_newest_first_and_once_also_when_counted_anew(self):
        stub = self.stub
        stub.events = [event_row(i, f"event {i}") for i in range(1, 451)]  # more than one answer has
        self.open()
        what = "#event-list .what"

        def told():
            return [text.split()[1] for text in self.browser.texts(what)]
        wait_for(lambda: told() == [str(i) for i in range(450, 0, -1)], "all events", 60, 0.1)
        self.assertEqual(self.browser.js("return document.getElementById('event-list').ariaLive"), "polite")
        again = [event_row(1, "event 450", time_ms=stub.events[-1]["time_ms"]), event_row(2, "event 451", time_ms=1)]
        stub.events, stub.events_since_ms = again, stub.events_since_ms + 1
        wait_for(lambda: told()[:3] == ["451", "450", "449"], "the one that is new", 60, 0.1)
        stub.lost = 3
        self.wait_for("#events-lost", "3 were lost")
        self.assert_still()

    def test_events_are_chosen_by_level(self):
        levels = ("info", "warn", "error")
        self.stub.events = [event_row(i + 1, level, level=level) for i, level in enumerate(levels)]
        self.open()
        wait_for(lambda: len(self.browser.texts("#event-list li")) == 3, "the events")
        for level, shown in zip(levels, (3, 2, 1)):
            self.browser.choose("level", level)
            self.assertEqual(len(self.browser.texts("#event-list li")), shown)

    def test_a_chart_has_gaps_and_is_read_by_keys(self):
        now = int(time.time() * 1000)
        for i in range(60, 0, -1):
            known = not 20 <= i < 40
            self.stub.points.append([now - 1000 * i, *([float(i)] * 9 if known else [None] * 9)])
        self.open()
        chart = "#chart-appends"

        def summary():
            return self.browser.js(f"return document.querySelector('{chart} .only-read').textContent")
        self.wait_for(f"{chart} .legend", "1/s")
        line = self.browser.js(f"return document.querySelector('{chart} .line-0').getAttribute('d')")
        self.assertEqual(line.count("M"), 2)
        self.assertIn("of the last 15 min, at most 60/s", summary())

        def value():
            return self.browser.js(f"return document.querySelector('{chart} .plot').ariaValueText")
        self.browser.js(f"document.querySelector('{chart} .plot').focus()")
        active = self.browser.driver.switch_to.active_element
        active.send_keys("\ue00e")  # Page Up begins at the newest: no farther
        active.send_keys(*["\ue012"] * 3)
        self.assertRegex(value(), r"^\d\d:\d\d:\d\d: –")  # 30 s ago nothing was known
        active.send_keys(*["\ue012"] * 2)
        self.assertRegex(value(), r"^\d\d:\d\d:\d\d: (4\d|5\d)/s entries per second$")
        active.send_keys("\ue00c")  # Escape
        self.assertRegex(value(), r"^now: ")
        self.browser.choose("span", "1")
        self.assertIn("of the last 1 min, at most", summary())
        self.browser.js("document.querySelector('details').open = true")
        wait_for(lambda: len(self.browser.table("minutes")) == 15, "the table")
        self.assertTrue(any(cell.endswith("/s") for row in self.browser.table("minutes").values() for cell in row))

    def test_the_matrix_has_what_is_known_and_what_is_told(self):
        place = {"state": "streaming", "lsn": 7, "end": 700, "lag_entries": 0, "lag_bytes": 0, "lag_ms": 0, "closed": False}
        late = {**place, "state": "disconnected", "lag_entries": 1234, "lag_bytes": 5000, "lag_ms": 9000}
        closed = {**place, "log": "0123456789", "origin": None, "closed": True}
        names = ("n1", "n2", "n3")
        marks = [{"log": "n2-log", "lsn": 50}, {"log": "n3-log", "lsn": 60}]
        self.stub.answers["nodes"] = {"nodes": [
            node_row("n1"), node_row("n2", watermarks=marks), node_row("n4", status="left"),
            node_row("n3", watermarks=[{"log": "n2-log", "lsn": 48}, marks[1]])]}
        self.stub.answers["replicas"].update(
            followers=[{"follower": "n2", **place}, {"follower": "n3", **late}],
            followed=[{**place, "log": "n2-log", "origin": "n2"}, closed])
        self.open()
        wait_for(lambda: len(self.browser.table("matrix")) == 4, "the matrix")
        self.assertEqual(self.browser.texts("#followers th"), ["Log of", *(f"at {name}" for name in names)])
        self.assertEqual(self.browser.table("matrix"), {
            "n1": ["LSN\n7", "0\nstreaming", "1,234\n5\u00a0kB, 9\u00a0s\ndisconnected"],
            "n2": ["0\nstreaming", "LSN\n50", "2\nby gossip"],
            "n3": ["–", "0\nby gossip", "LSN\n60"],
            "01234567": ["closed\nLSN 7", "–", "–"]})

    def test_nothing_moves_when_something_comes(self):
        for size in (DESKTOP, PHONE):
            with self.subTest(size=size), Stub() as stub:
                self.browser.look(size)
                self.browser.open(stub.url)
                self.wait_for("#freshness", "Live")
                self.assert_still()
                self.much_comes(stub)
                self.assert_still()
                self.browser.driver.get("about:blank")

    def much_comes(self, stub):
        """On all sections, and as long as it gets."""
        place = {"state": "catching_up", "lsn": 7, "end": 700, "lag_entries": 123456, "lag_bytes": 123456789,
                 "lag_ms": 123456, "closed": False}
        died = {"service": "walsvc", "time_ms": 1, "pid": 1, "cause": "signal 9 (SIGKILL)", "uptime_ms": 1,
                "lines": [f"line {i} " + "x" * 200 for i in range(20)]}
        stub.answers["status"].update(health="unavailable", reasons=[f"{i}: " + "why " * 20 for i in range(20)])
        stub.answers["services"] = {"obituaries": [died] * 20, "services": [
            service_row("walsvc", state="backoff", restarts=1234, last_exit="signal 9 (SIGKILL)", status="says " * 50),
            service_row("querysvc")]}
        stub.answers["nodes"] = {"nodes": [node_row("n1"), node_row("n2", status="must_rejoin", unreachable=True)]}
        stub.answers["replicas"]["followers"] = [{"follower": "n2", **place}]
        stub.points.append([int(time.time() * 1000), *[1.0] * 9])
        stub.events = [event_row(i, "told " * 20) for i in range(1, 20)]
        stub.lost = 1000
        for selector, wanted in (("#reasons", "19: why"), ("#tree", "SIGKILL"), ("#members", "must rejoin"),
                                 ("#matrix", "123,456"), ("#chart-appends .legend", "1/s"), ("#event-list", "told"),
                                 ("#obituary-others", "walsvc"), ("#events-lost", "1000")):
            self.wait_for(selector, wanted)
        stub.failing = {name: "walsvc does not answer, nor anybody else" for name in ("nodes", "services", "history")}
        self.wait_for("[data-of=services]", "nor anybody else")
        self.wait_for("[data-of=history]", "nor anybody else")

    def test_all_is_named_reached_and_readable(self):
        self.stub.answers["status"].update(health="degraded", reasons=["n2 is suspect"])
        self.stub.answers["nodes"] = {"nodes": [node_row(f"n{i}", status=status) for i, status in enumerate(
            ("up", "suspect", "down", "left"))]}
        self.stub.answers["services"]["services"] += [service_row(s, state=s) for s in ("backoff", "failed")]
        self.stub.events = [event_row(i, "told", level=level) for i, level in enumerate(("info", "warn", "error"), 1)]
        self.open()
        wait_for(lambda: len(self.browser.texts("#event-list li")) == 3, "the events")
        self.assertEqual(self.browser.js(UNNAMED), [])
        for size in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                self.browser.look(size, scheme)
                self.assertEqual(self.browser.js(FAINT), [], scheme)
                self.assertLessEqual(self.browser.js("return document.documentElement.scrollWidth"), size[0])
        self.browser.driver.find_element("tag name", "body").send_keys("\ue004")  # Tab
        self.assertEqual(self.browser.js("return document.activeElement.textContent"), "Skip to the content")


class Lived(WithBrowser):
    """Three real nodes; the page is that of n1."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = Cluster(3)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.node = cls.cluster["n1"]
        cls.url = f"http://127.0.0.1:{cls.cluster.members[0]['admin_port']}/"

    def open(self):
        self.browser.open(self.url)
        self.wait_for("#freshness", "Live")

    def wait_row(self, body, name, wanted, timeout=60):
        """Until that row of a table begins with what is wanted."""
        def has():
            return self.browser.table(body).get(name, [])[:len(wanted)] == wanted
        try:
            wait_for(has, f"{name}: {wanted}", timeout, 0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.browser.table(body)}") from None

    def has_event(self, *words):
        """Until one event has all of them."""
        wait_for(lambda: any(all(word in text for word in words) for text in self.browser.texts("#event-list li")),
                 f"an event with {words}", 60, 0.1)

    def test_the_browser_is_told_to_load_nothing_else(self):
        with urllib.request.urlopen(self.url, timeout=60) as answer:
            policy = answer.headers["Content-Security-Policy"]
            self.assertEqual(answer.headers["Content-Type"], "text/html; charset=utf-8")
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.open()
        self.browser.complaints()
        self.browser.js("const image = new Image(); image.src = '/page/style.css'; document.body.append(image)")
        wait_for(lambda: any("Content Security Policy" in text for text in self.browser.complaints()), "the refusal")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(self.url, b"x", method="POST"), timeout=60)
        self.assertEqual(refused.exception.code, 405)

    def test_what_happens_to_a_cluster(self):
        self.open()
        for name in ("n1", "n2", "n3"):
            self.wait_row("members", name, ["up"])
        for name in SERVICES:
            self.wait_row("tree", name, ["running", "0"])
        self.wait_for("#health", "healthy")
        wait_for(lambda: len(self.browser.table("matrix")) == 3, "the matrix")
        self.browser.jumps()  # a node that has just begun does not know all others yet
        self.charts_move_under_load()
        self.a_daemon_dies()
        self.a_node_is_lost_and_comes_back()
        self.browser.choose("span", "1")
        for name, size, scheme in (("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")):
            self.browser.shoot(f"page-{name}", size, scheme)
        self.browser.look()
        self.assert_quiet(self.url)
        self.obssvc_is_away_and_comes_back()

    def figure_of(self, chart):
        """The greatest of its last 15 minutes, as it is read aloud."""
        text = self.browser.js(f"return document.querySelector('#chart-{chart} .only-read').textContent")
        return re.search(r"at most ([\d.,]+)", text)[1] if "at most" in text else None

    def charts_move_under_load(self):
        wait_for(lambda: self.figure_of("appends") is not None, "figures", 60, 0.1)
        bench = subprocess.Popen(self.node.ctl_command("bench", "append", "-d", "3s", "-D", self.node.dir),
                                 stdout=subprocess.DEVNULL)
        self.addCleanup(bench.wait)
        self.addCleanup(bench.kill)
        for chart in ("appends", "bytes", "append", "commit"):
            wait_for(lambda chart=chart: self.figure_of(chart) not in (None, "0"), f"{chart} to move", 120, 0.1)
        self.assertEqual(bench.wait(120), 0)

        def copied():
            return all(row[i] == "0\nstreaming" for row in (self.browser.table("matrix").get("n1", [""] * 3),)
                       for i in (1, 2))
        wait_for(copied, "all copies", 120, 0.1)
        last = self.node.json("status")["durable_lsn"]
        self.wait_row("matrix", "n1", [f"LSN\n{last:,}"])
        self.assertGreater(last, 1)

    def a_daemon_dies(self):
        pid = self.node.kill("replsvc")
        self.wait_row("tree", "replsvc", ["running", "1"])
        self.assertEqual(self.browser.table("tree")["replsvc"][3], "SIGKILL")
        self.wait_for("#obituary-head", f"replsvc (pid {pid}): signal 9 (SIGKILL)")
        self.assertIn("ready", self.browser.text("#obituary-lines"))
        self.has_event("replsvc", "service_died")

    def a_node_is_lost_and_comes_back(self):
        self.cluster["n3"].kill_all()
        self.has_event("n3", "suspect")
        self.wait_row("members", "n3", ["down"])
        self.has_event("n3", "down")
        self.wait_for("#reasons", "n3 is down")
        self.wait_for("#health", "degraded")
        wait_for(lambda: self.browser.table("matrix")["n2"][2].endswith("node is down"), "the matrix to have it", 60, 0.1)
        self.assert_still()
        self.cluster["n3"].start()
        self.wait_row("members", "n3", ["up"])
        self.wait_for("#health", "healthy")

    def obssvc_is_away_and_comes_back(self):
        self.node.ctl("svc", "stop", "obssvc")
        self.wait_for("#freshness", "Stale: no answer since")
        self.node.ctl("svc", "start", "obssvc")
        self.wait_for("#freshness", "Live")
        pid = self.node.kill("querysvc")
        self.wait_for("#obituary-head", f"querysvc (pid {pid})")
        self.has_event("querysvc", "service_died")
        self.assertGreater(len(self.browser.texts("#event-list li")), 2)  # those of before are kept


if __name__ == "__main__":
    unittest.main()
