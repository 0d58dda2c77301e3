"""A real node for system tests: real processes, real files, real kills.

Everything lives in one short temporary directory (a unix socket's path has 107 bytes) and is gone after close().
Only processes that were started here are ever signalled, by their pid."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

BIN = os.environ.get("SHANGHAI_BIN", os.path.join(os.getcwd(), "build", "bin"))
SERVICES = ("walsvc", "membersvc", "replsvc", "querysvc", "obssvc")


def wait_for(condition, what, timeout=60.0, pause=0.01):
    """Calls condition until it returns something true, which it returns."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(pause)


def ephemeral_ports():
    """The first one that the kernel gives to who asks for none in particular."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        return int(file.read().split()[0])


given_ports = {}  # port: what keeps it from other tests


def claim_ports(ports):
    """Until this process ends, no other test is given these, nor looks whether they are free: they are not while nobody
    listens there. By names of unix sockets without files. False: another one has them."""
    claims = {}
    try:
        for port in ports:
            claims[port] = socket.socket(socket.AF_UNIX)
            claims[port].bind(f"\0shanghai-test-port-{port}")
    except OSError:
        for claim in claims.values():
            claim.close()
        return False
    given_ports.update(claims)
    return True


def free_port(span=5):
    """The first of `span` consecutive ports that are all free on loopback, that the kernel gives to nobody by itself
    meanwhile, and that no test was given before that still runs."""
    most = ephemeral_ports() - span
    for _ in range(1000):
        base = random.randrange(min(10000, most - 1), most)
        ports = range(base, base + span)
        if not claim_ports(ports):
            continue
        try:
            for port in ports:
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue  # and nobody else need look there
    raise AssertionError("no free ports")


def process_begin(pid):
    """When a live process was started, in ticks of the machine: pids are used again. None: it is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[19]) if fields[0] != "Z" else None


def process_exists(pid):
    """True for a live process; a zombie counts as gone."""
    return process_begin(pid) is not None


def member_row(name, host, port):
    """Of the topology's nodes; the ports of a node are six in a row."""
    return {"id": name, "host": host, "port": port, "admin_port": port + 5}


class Node:
    """One node n1, alone; or one of several, see cluster.py. settings: YAML lines added to the topology file; env: for
    shanghaid and its services; parent: where its temporary directory is made; members: rows of the topology, itself
    included; enter: a command that runs shanghaid somewhere else, in its own process."""

    def __init__(self, settings="", supervisor="", env=None, parent="/tmp", name="n1", members=None, enter=()):
        self.name = name
        self.settings = f"{settings}\n{supervisor}\n"
        self.enter = list(enter)
        self.dir = tempfile.mkdtemp(prefix="sh", dir=parent)
        self.data = os.path.join(self.dir, f"{name}.data")
        self.run = os.path.join(self.dir, f"{name}.run")
        self.config = os.path.join(self.dir, "topology.yaml")
        self.log_path = os.path.join(self.dir, "shanghaid.log")
        self.endpoint = f"ipc://{self.run}/query"
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.ever = {}  # pid of each service that was seen: when it began
        os.mkdir(self.data)
        os.mkdir(self.run, 0o700)
        self.write_config(members or [member_row(name, "127.0.0.1", free_port(6))])

    def write_config(self, members):
        """The topology as this node sees it."""
        own = next(row for row in members if row["id"] == self.name)
        self.host, self.port = own["host"], own["port"]
        self.tcp = f"tcp://{self.host}:{self.port}"
        rows = "".join(f"    - {json.dumps(row)}\n" for row in members)
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"cluster:\n  name: test\n  nodes:\n{rows}"
                       f"data_dir: {self.dir}/%n.data\nrun_dir: {self.dir}/%n.run\n{self.settings}")

    def spawn(self):
        """Starts shanghaid without waiting for it to be ready."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.enter, os.path.join(BIN, "shanghaid"), "--config", self.config, "--node", self.name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        return self

    def start(self):
        self.spawn()
        self.wait_ready()
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"shanghaid ended with {self.process.returncode}:\n{self.log_tail()}")
        status = self.ctl("--format", "json", "--timeout", "1s", "status", check=False)
        return status.returncode == 0 and json.loads(status.stdout)["writes"] != "walsvc_away"

    def wait_ready(self, timeout=60.0):
        wait_for(self.is_ready, "a ready node", timeout, 0.02)
        self.tree()

    def ctl_command(self, *args, endpoint=None):
        return [os.path.join(BIN, "shanghaictl"), "--endpoint", endpoint or self.endpoint, *args]

    def ctl(self, *args, check=True, endpoint=None, **options):
        """Runs shanghaictl; bytes in and out."""
        options.setdefault("timeout", 120)
        if "input" not in options and "stdin" not in options:
            options["stdin"] = subprocess.DEVNULL
        done = subprocess.run(self.ctl_command(*args, endpoint=endpoint), capture_output=True, env=self.env,
                              check=False, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"shanghaictl {args}: exit {done.returncode}\n{done.stderr.decode()}\n{self.log_tail()}")
        return done

    def json(self, *args, **options):
        return json.loads(self.ctl("--format", "json", *args, **options).stdout)

    def try_json(self, *args):
        """None: no answer, or none in time."""
        done = self.ctl("--format", "json", "--timeout", "2s", *args, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def events(self, after=0):
        """Of the cluster, as it saw them, behind that number."""
        def answered():
            done = self.ctl("--format", "json", "events", "--from", str(after + 1), check=False)
            return done if done.returncode == 0 else None
        done = wait_for(answered, f"the events of {self.name}")  # membersvc may just be started again
        return [json.loads(line) for line in done.stdout.splitlines()]

    def tree(self):
        rows = self.json("svc", "tree")
        rows = rows["services"] if isinstance(rows, dict) else rows
        self.ever.update((row["pid"], process_begin(row["pid"])) for row in rows if row.get("pid"))
        return {row["name"]: row for row in rows}

    def pid(self, service):
        """Of a service that runs."""
        def running():
            row = self.tree().get(service, {})
            return row.get("pid") if row.get("state") == "running" else None
        try:
            return wait_for(running, f"{service} to run")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tree()}\n{self.log_tail()}") from None

    def kill(self, service, number=signal.SIGKILL):
        """One that runs; returns its pid."""
        while True:
            pid = self.pid(service)
            try:
                os.kill(pid, number)
                return pid
            except ProcessLookupError:  # it had died, and was reported as running
                pass

    def stop_service(self, service):
        """Until it has ended: the command only says that it is to."""
        self.ctl("svc", "stop", service)
        wait_for(lambda: self.tree()[service]["state"] == "stopped", f"{service} to be stopped")

    def restart_service(self, service):
        """Until the next one is there."""
        pid = self.pid(service)
        self.ctl("svc", "restart", service)
        wait_for(lambda: self.pid(service) != pid, f"another {service}")

    def wait_logged(self, text):
        """Lines with it: what a service says comes through the supervisor, which may be behind."""
        return wait_for(lambda: self.log_lines(text), f"'{text}' in the log of {self.name}")

    def wait_durable(self, lsn):
        """querysvc hears of it after whoever appended."""
        wait_for(lambda: self.json("status")["durable_lsn"] == lsn, f"LSN {lsn} to be durable at {self.name}")

    def log_tail(self, lines=40):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])

    def log_lines(self, text):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return [line for line in log if text in line]

    def log_dir(self):
        """data/log/<uuid> of the one log."""
        root = os.path.join(self.data, "log")
        names = [name for name in os.listdir(root) if len(name) == 36]
        assert len(names) == 1, names
        return os.path.join(root, names[0])

    def restart_with_indexes(self):
        """Restarts, and waits until the start has made the index that is missing then: it makes none by itself any more."""
        assert self.stop() == 0
        first = min(name for name in os.listdir(self.log_dir()) if name.endswith(".seg"))
        path = os.path.join(self.log_dir(), first.replace(".seg", ".idx"))
        if os.path.exists(path):
            os.unlink(path)
        self.start()
        wait_for(lambda: os.path.exists(path), "the oldest index, which is made last")

    def stop(self, timeout=60.0):
        """A clean stop; returns shanghaid's exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout)
        self.process = None
        return code

    def is_left(self, pid):
        """Whether that service of ours still lives."""
        return self.ever[pid] is not None and process_begin(pid) == self.ever[pid]

    def kill_all(self):
        """SIGKILL to shanghaid; its services must go with it."""
        self.tree()
        self.kill_now()

    def kill_now(self):
        """The same, for those services only that were seen already."""
        self.process.kill()
        self.process.wait(30)
        self.process = None
        wait_for(lambda: not any(map(self.is_left, self.ever)), "the end of all services", 30)

    def wipe(self):
        """Its disk is a new one."""
        shutil.rmtree(self.data)
        os.mkdir(self.data)

    def close(self):
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(30)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait(30)
            wait_for(lambda: not any(map(self.is_left, self.ever)), "the end of all services", 30)
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
