"""What Prometheus scrapes, without ids: counters and histograms in its text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
HELP = {
    "xrec_requests_total": "Requests by route, method and status.",
    "xrec_request_seconds": "Time of requests by route; of /v1/profile/changes it has the wait in it.",
    "xrec_answers_total": "Answers that carry a code, by code.",
    "xrec_operations_total": "Operations of pushes by what became of them.",
    "xrec_erasures_total": "Erasures of everything, on the account's word.",
    "xrec_retired_total": "Rows and devices that the retention took.",
    "xrec_long_polls": "Requests that wait for changes now.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts since the start of the process; used in the event loop's thread only."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._times: dict[str, dict[Labels, list[float]]] = defaultdict(dict)

    def count(self, name: str, by: float = 1, /, **labels: str) -> None:
        """Add to a counter."""
        self._counts[name][tuple(labels.items())] += by

    def time(self, name: str, seconds: float, /, **labels: str) -> None:
        """Add to a histogram of seconds."""
        times = self._times[name].setdefault(tuple(labels.items()), [0.0] * (len(BUCKETS_S) + 2))
        times[bisect_left(BUCKETS_S, seconds)] += 1
        times[-1] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return everything in the text format, with gauges as they are now."""
        lines = []
        for name, value in gauges.items():
            lines += [*_head(name, "gauge"), f"{name} {value:g}"]
        for name, counts in self._counts.items():
            lines += _head(name, "counter")
            lines += [f"{name}{_labels(labels)} {value:.0f}" for labels, value in counts.items()]
        for name, times in self._times.items():
            lines += _head(name, "histogram")
            for labels, (*buckets, total_s) in times.items():
                lines += _histogram(name, labels, buckets, total_s)
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]


def _histogram(name: str, labels: Labels, buckets: list[float], total_s: float) -> list[str]:
    lines, below = [], 0.0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
        below += count
        lines.append(f"{name}_bucket{_labels((*labels, ('le', bound)))} {below:.0f}")
    return [*lines, f"{name}_sum{_labels(labels)} {total_s:.6f}", f"{name}_count{_labels(labels)} {below:.0f}"]


def _labels(labels: Labels) -> str:
    # Values are routes, methods, numbers and codes of ours: none has a quote, a backslash or a line break.
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
