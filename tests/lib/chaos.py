"""Faults of a cluster whose nodes live on a network of their own (netns.py)."""
import os
import signal

from shanghai import SERVICES


class Faults:
    """A daemon is killed in each round; one longer fault at a time comes and goes beside that."""

    def __init__(self, cluster, network, chance):
        self.cluster, self.network, self.chance = cluster, network, chance
        self.names = list(cluster.nodes)
        self.killed = 0
        self.told, self.to_come = [], []
        self.mend = None

    def alive(self):
        return [node for node in self.cluster.nodes.values() if node.process is not None]

    def kill_one(self):
        self.chance.choice(self.alive()).kill(self.chance.choice(SERVICES))
        self.killed += 1

    # ---- longer ones: each returns what ends it

    def cut_one_off(self):
        name = self.chance.choice(self.names)
        self.network.pull_cable(name)
        return lambda: self.network.plug_cable(name)

    def two_halves(self):
        self.network.split(self.chance.sample(self.names, len(self.names) // 2))
        return self.network.unite

    def stop_some(self):
        node = self.chance.choice(self.alive())
        services = self.chance.choice((["replsvc"], ["walsvc"], ["replsvc", "walsvc"]))
        stopped = [node.kill(service, signal.SIGSTOP) for service in services]

        def go_on():
            for pid in stopped:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:  # killed meanwhile
                    pass
        return go_on

    def kill_node(self):
        node = self.chance.choice(self.alive())
        node.kill_all()
        return node.start

    def begin(self):
        """Each kind comes before one comes again."""
        if not self.to_come:
            self.to_come = [self.cut_one_off, self.two_halves, self.stop_some, self.kill_node]
            self.chance.shuffle(self.to_come)
        fault = self.to_come.pop()
        self.told.append(fault.__name__)
        self.mend = fault()

    def round(self):
        if self.mend is None:
            self.begin()
        elif self.chance.random() < 0.5:
            self.heal()
        self.kill_one()

    def heal(self):
        if self.mend is not None:
            self.mend()
        self.mend = None
