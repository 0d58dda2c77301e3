"""Chromium, driven by chromium-driver, with one page of the dashboard: it is kept from every other server."""
import json
import os
import shutil
import tempfile

from selenium import webdriver  # Debian's: only /usr/bin/python3 is sure to find it
from selenium.webdriver.chrome.service import Service

from shanghai import wait_for

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHOTS = os.path.join(TOP, "build", "screenshots")
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
DESKTOP, PHONE = (1440, 900), (360, 740)

# From the start of a page: what was moved up or down without the reader's doing. A figure that becomes a digit longer
# moves its neighbour aside, by a hair.
WATCH_JUMPS = """
window.jumps = [];
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
        const moved = entry.sources.filter((s) => Math.abs(s.previousRect.y - s.currentRect.y) >= 1);
        if (!entry.hadRecentInput && moved.length > 0)
            window.jumps.push([entry.value, moved.map((s) => s.node?.id || s.node?.className || s.node?.nodeName)]);
    }
}).observe({type: "layout-shift", buffered: true});
"""


class Browser:
    """Whatever it shows is what a server on loopback gave it."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
                         "disable-background-networking", "disable-component-update", "disable-sync",
                         "disable-default-apps", "disable-extensions", "hide-scrollbars", f"user-data-dir={self.dir}",
                         "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.requested, self.console = [], []
        try:
            self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        except Exception:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        self.driver.set_page_load_timeout(120)
        self.driver.set_script_timeout(60)
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_JUMPS})

    def close(self):
        try:
            self.driver.quit()
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- what it looks like

    def look(self, size=DESKTOP, scheme="light"):
        width, height = size
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def shoot(self, name, size=DESKTOP, scheme="light"):
        """The whole page, into build/screenshots. The phone's window remains so."""
        self.look(size, scheme)
        height = self.js("return document.documentElement.scrollHeight")
        self.look((size[0], max(height, size[1])), scheme)
        os.makedirs(SHOTS, exist_ok=True)
        self.driver.save_screenshot(os.path.join(SHOTS, f"{name}.png"))
        self.look(size, scheme)

    # ---- what it shows

    def open(self, url):
        self.driver.get(url)
        wait_for(lambda: self.js("return !document.getElementById('main').hidden"), "the page to be shown", 60, 0.05)

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def choose(self, name, value):
        """Of a select."""
        self.js("const select = document.getElementById(arguments[0]); select.value = arguments[1];"
                "select.dispatchEvent(new Event('change'))", name, value)

    def text(self, selector):
        """As it is laid out."""
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def texts(self, selector):
        """Those that are shown."""
        return self.js("return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"
                       ".map((e) => e.innerText)", selector)

    def table(self, body):
        """{first cell of the row: the others}"""
        rows = self.js("return [...document.querySelectorAll(arguments[0] + ' tr')]"
                       ".map((row) => [...row.children].map((cell) => cell.textContent))", f"#{body}")
        return {row[0].strip(): row[1:] for row in rows}

    def wait_text(self, selector, wanted, timeout=60):
        """Until the text of the first such element has it."""
        try:
            wait_for(lambda: wanted in self.text(selector), f"{wanted!r} in {selector}", timeout, 0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.text(selector)!r}") from None

    # ---- what it did

    def read_logs(self):
        self.console += self.driver.get_log("browser")
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            # Those of the empty page that a browser begins with are its own.
            if message["method"] == "Network.requestWillBeSent" and message["params"]["documentURL"].startswith("http"):
                self.requested.append(message["params"]["request"]["url"])

    def complaints(self):
        """What the console has, since this was last asked."""
        self.read_logs()
        console, self.console = self.console, []
        return [entry["message"] for entry in console if entry["level"] in ("SEVERE", "WARNING")]

    def jumps(self):
        """[[share of the page that moved, what]] since this was last asked."""
        return self.js("const jumps = window.jumps; window.jumps = []; return jumps")
