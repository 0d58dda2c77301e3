"""Figures as people read them, and their medians."""
import statistics


def rate_text(rate):
    if rate >= 1e6:
        return f"{rate / 1e6:.2f} M/s"
    return f"{rate / 1e3:.1f} k/s" if rate >= 1e4 else f"{rate:.0f}/s"


def bytes_text(rate):
    return f"{rate / 1e6:.0f} MB/s" if rate >= 1e7 else f"{rate / 1e6:.2f} MB/s"


def ms_text(us):
    return f"{us / 1000:.2f}"


def median_of(rounds):
    """The median of each figure over the rounds; of what is no number, the one that is the same in most."""
    def median(values):
        return statistics.median(values) if isinstance(values[0], (int, float)) else statistics.mode(values)
    return {name: median([figures[name] for figures in rounds]) for name in rounds[0]}
