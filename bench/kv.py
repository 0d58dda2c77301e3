"""Keys of one node, and the same work on Redis in the same run."""
import os

from redis_peer import CLIENTS, PIPELINE, Redis
from texts import median_of, ms_text, rate_text

KEYS = {False: 1_000_000, True: 100_000}
SIZE = 128
PUT_RATE = 250_000
PACE = 260_000  # of puts, for how far the view is behind what is sustained
BEHIND_S = 1
ECHO_RATIO = 0.6
BATCH_RATE = 200_000
SCAN_RATE = 1_000_000


def flat(figures):
    """Of bench kv: one figure each, so that medians can be taken."""
    flat_figures = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat_figures.update({f"{name}_{inner}": figure for inner, figure in value.items()})
        else:
            flat_figures[name] = value
    return flat_figures


def bench(works, node, *words):
    return flat(works.bench(node, "kv", "--disk-dir", works.plan.dir, "--keys", str(KEYS[works.plan.quick]), "--size",
                            str(SIZE), *words))


def ours(works, where):
    """Paced, for all but how fast keys can be put; that on a node of its own."""
    with works.node("query: {view: true}") as node:
        works.progress(f"kv, {where}: ours, at {rate_text(PACE)}")
        paced = bench(works, node, "--rate", str(PACE))
    with works.node("query: {view: true}") as node:
        works.progress(f"kv, {where}: ours, as fast as it goes")
        fast = node.json("bench", "kv", "--disk-dir", works.plan.dir, "--keys", str(KEYS[works.plan.quick]), "--size", str(SIZE),
                         "--duration", "100ms", timeout=300)
    return dict(paced, fast_put_rate=fast["put"]["rate"], fast_view_behind_s=fast["view_behind_s"])


def redis(works, where):
    keys, seconds = KEYS[works.plan.quick], works.plan.duration
    works.progress(f"kv, {where}: redis")
    with Redis(works.plan.dir) as peer:
        put = peer.put_keys(keys, SIZE)
        get = peer.command_for(seconds, ["GET", "key:__rand_int__"], keys, 64, 1)
        batch = peer.command_for(seconds, ["GET", "key:__rand_int__"], keys, CLIENTS, PIPELINE)
        scan = peer.scan_keys(keys)
    os.sync()
    return flat({"put": put, "get": get, "get_batch": batch, "scan": scan})


def line(who, f, more=""):
    return (f"  {who:5}  put {rate_text(f['put_rate']):>9}  get {rate_text(f['get_rate']):>9} p99 {ms_text(f['get_p99_us'])} ms"
            f"  by 100 {rate_text(f['get_batch_rate']):>9}  scan {rate_text(f['scan_rate']):>9}{more}")


def goals(works, f):
    return {
        "get": works.target(f"gets, 64 in flight: {f['get_to_echo']:.2f} of the bare nng echo, "
                            f"{rate_text(f['nng_echoes_per_s'])}, to reach {ECHO_RATIO}", f["get_to_echo"] >= ECHO_RATIO),
        "get_batch": works.target(f"gets by 100: {rate_text(f['get_batch_rate'])}, to reach {rate_text(BATCH_RATE)}",
                                  f["get_batch_rate"] >= BATCH_RATE),
        "put": works.target(f"puts by 100: {rate_text(f['put_rate'])} durable with the view {f['view_behind_s']:.3f} s behind, to "
                            f"reach {rate_text(PUT_RATE)} and {BEHIND_S} s",
                            f["put_rate"] >= PUT_RATE and f["view_behind_s"] < BEHIND_S),
        "scan": works.target(f"scan: {rate_text(f['scan_rate'])}, to reach {rate_text(SCAN_RATE)}", f["scan_rate"] >= SCAN_RATE),
    }


def measure(works):
    works.show(f"{KEYS[works.plan.quick]:,} keys of {SIZE} B; Redis: SET and GET, appendfsync always, {CLIENTS} clients, pipeline "
               f"{PIPELINE}; single gets by 64 clients; its scan has no values")
    rounds = {"ours": [], "redis": []}
    for number in range(1, works.plan.rounds + 1):
        where = f"round {number} of {works.plan.rounds}"
        rounds["ours"].append(ours(works, where))
        last = rounds["ours"][-1]
        works.show(line("ours", last, f"; unpaced put {rate_text(last['fast_put_rate'])}, view {last['fast_view_behind_s']:.2f} s behind"))
        rounds["redis"].append(redis(works, where))
        works.show(line("redis", rounds["redis"][-1]))
    medians = {who: median_of(figures) for who, figures in rounds.items()}
    ratios = {name: round(medians["ours"][mine] / medians["redis"][f"{name}_rate"], 2)
              for name, mine in (("put", "fast_put_rate"), ("get", "get_rate"), ("get_batch", "get_batch_rate"), ("scan", "scan_rate"))}
    works.show("  medians, ours to Redis: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    return {**medians, "ratios": ratios, "goals": goals(works, medians["ours"]), "rounds": rounds}
