"""Several nodes of one cluster: on loopback, or each in a network namespace of its own (netns.py)."""
from shanghai import Node, free_port, member_row, wait_for

# Short, and long enough for a busy machine: nobody is down who only waits for a processor.
TIMES = "member: {heartbeat_interval: 500ms, suspect_after: 2s, down_after: 3s}"
# Where nobody is to be down, nor suspect: whatever a node waits for, a disk too.
PATIENT_TIMES = "member: {heartbeat_interval: 500ms, suspect_after: 20s, down_after: 30s}"
SUPERVISOR = "supervisor: {intensity: 1000, period: 60s, backoff: false}"
PORT = 4000
SHARED = ("id", "status", "since_ms", "host", "port", "admin_port", "group", "log", "generation", "incarnation", "boot")


class Cluster:
    """Nodes n1, n2, ... by cluster["n1"]. settings, supervisor, env, parent: as of Node. network: they live there, each in
    its own namespace. groups: the replication group of each node; without, all are of one."""

    def __init__(self, count=3, settings=TIMES, supervisor=SUPERVISOR, env=None, network=None, parent="/tmp", groups=()):
        names = [f"n{i}" for i in range(1, count + 1)]
        if network is None:
            base = free_port(6 * count)
            self.members = [member_row(name, "127.0.0.1", base + 6 * i) for i, name in enumerate(names)]
        else:
            self.members = [member_row(name, network.add(name), PORT) for name in names]
        for row, group in zip(self.members, groups):
            row["group"] = group
        self.nodes = {name: Node(settings, supervisor, env, parent, name, self.members,
                                 enter=network.enter(name) if network else ()) for name in names}

    def __getitem__(self, name):
        return self.nodes[name]

    def start(self):
        try:
            for node in self.nodes.values():
                node.spawn()
            for node in self.nodes.values():
                node.wait_ready()
            self.wait_healthy()
        except AssertionError:
            self.close()  # `with Cluster().start()` has nothing to leave yet
            raise
        return self

    def status_of(self, name, of):
        """What node `name` shows of member `of`; None without an answer."""
        return self.try_rows(name).get(of, {}).get("status")

    def try_rows(self, name):
        """{member: its row}; {}: no answer in time."""
        answer = self.nodes[name].try_json("nodes")
        return {row["id"]: row for row in answer["nodes"]} if answer is not None else {}

    def rows(self, name):
        """{member: its row}, of a node that runs: it may take its time."""
        return wait_for(lambda: self.try_rows(name), f"{name} to show its members", pause=0.05)

    def view(self, name):
        """What every node must show alike."""
        return [[row[key] for key in SHARED] for row in self.rows(name).values()]

    def wait_equal(self):
        """Healthy, and all have the same view."""
        self.wait_healthy()

        def agree():
            first, *others = map(self.view, self.nodes)
            return first and all(other == first for other in others)
        wait_for(agree, "equal views")

    def wait_status(self, of, status, seen_by, timeout=60):
        for name in seen_by:
            wait_for(lambda name=name: self.status_of(name, of) == status, f"{name} to see {of} {status}", timeout,
                     0.05)

    def is_healthy(self):
        """All nodes, and all that they think of each other; in a founded cluster."""
        for node in self.nodes.values():
            status = node.try_json("status")
            if status is None or status["health"] != "healthy" or len(status["nodes"]) < len(self.nodes):
                return False
        return True

    def wait_healthy(self, timeout=60):
        try:
            wait_for(self.is_healthy, "a healthy cluster", timeout, 0.05)
        except AssertionError as error:
            tails = "\n".join(f"{name}:\n{node.log_tail(15)}" for name, node in self.nodes.items())
            raise AssertionError(f"{error}\n{list(map(self.try_rows, self.nodes))}\n{tails}") from None

    def events(self, name, after=0):
        """[(event, member)] behind number `after`, as that node saw them."""
        return [(event["event"], event["id"]) for event in self.nodes[name].events(after)]

    def last_event(self, name):
        """Its number."""
        return self.nodes[name].events()[-1]["number"]

    def close(self):
        first = None
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes.values():
            try:
                node.close()
            except AssertionError as error:
                first = first or error
        if first is not None:
            raise first

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
