"""Show how right the probabilities are: a reliability plot for each list, and the figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SIDE, LEFT, BOTTOM, TOP = 300, 56, 44, 12
AXES = "said (across), came true (up)"
FIGURES = {
    "auc": "AUC",
    "log_loss": "Log loss",
    "mse": "Squared error (Brier)",
    "ece_10": "Calibration error, 10 bins",
    "ece_15": "Calibration error, 15 bins",
    "mean_probability": "Mean probability",
    "base_rate": "Share that came true",
    "accuracy_at_0.5": "Accuracy at 0.5",
    "f1_at_0.5": "F1 at 0.5",
    "accuracy_at_best": "Accuracy at the threshold",
    "f1_at_best": "F1 at the threshold",
}


def section(ranker: Mapping[str, Any] | None) -> str:
    """Return the report's section about a ranker, of what ranker.json holds; nothing without one."""
    if not ranker:
        return ""
    parts = [
        "<section><h2>How right are the probabilities?</h2>",
        f'<p class="note">The chance that a user takes a shown item within {ranker["horizon_days"]:g} days, on the'
        " test period. Each dot holds a tenth of the cases: on the diagonal, what was said is what came true.</p>",
    ]
    for one in ranker["lists"].values():
        parts.append(f"<h3>{escape(one['title'][:1].upper() + one['title'][1:])}</h3>")
        parts.append(f'<p class="note">{one["cases"]:,} cases of {one["users"]:,} users.</p>')
        drawn = plot(one["reliability"], one["title"])
        parts.append(f'<div style="max-width:{LEFT + SIDE}px">{drawn}</div>{_figures(one)}')
    return "".join(parts) + "</section>"


def plot(points: Sequence[Mapping[str, float]], title: str) -> str:
    """Return the reliability plot: across what was said, up what came true, and the diagonal."""
    most = max((max(point["probability"], point["share"]) for point in points), default=0.0) * 1.08 or 1.0
    width, height = LEFT + SIDE + 16, TOP + SIDE + BOTTOM
    label = escape(f"reliability: {title}", quote=True)

    def at(across: float, up: float) -> tuple[float, float]:
        return LEFT + across / most * SIDE, TOP + (1 - up / most) * SIDE

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}"><title>{label}</title>']
    for tick in (0.0, most / 3, most * 2 / 3, most):
        x, y = at(tick, tick)
        text = f"{tick:.1%}" if most < 0.1 else f"{tick:.0%}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{TOP + SIDE + 18}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP + SIDE}L{LEFT + SIDE} {TOP}" stroke-dasharray="4 4"/>')
    places = [(*at(point["probability"], point["share"]), point) for point in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)}"/>')
    for x, y, point in places:
        said = f"said {point['probability']:.1%}, came true {point['share']:.1%} of {int(point['cases']):,}"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{said}</title></circle>')
    middle = LEFT + SIDE / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{AXES}</text>')
    return "".join(parts) + "</svg>"


def _figures(one: Mapping[str, Any]) -> str:
    alone = one.get("score_alone", {})
    lines = []
    for name, title in FIGURES.items():
        found = one["metrics"][name]
        shown = f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        other = f"{alone[name]['mean']:.4f}" if name in alone else ""
        lines.append(f"<tr><td>{escape(title)}</td><td>{shown}</td><td>{other}</td></tr>")
    head = "<tr><th></th><th>Ranker [95 %]</th><th>Score alone</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'
