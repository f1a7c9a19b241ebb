"""Draw bars with whiskers and lines as inline SVG, and hold the style of the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Bar:
    """One bar: label, value, the ends of its interval where there is one, and whether it is the one to look at."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    is_main: bool = False


WIDTH = 720
ROW = 34
LABEL_WIDTH = 190
VALUE_WIDTH = 74


def bars(rows: Sequence[Bar], *, title: str, number_format: str = ".4f") -> str:
    """Return horizontal bars from zero, with whiskers; the zero line moves in where a value or an end is negative."""
    shown = [row for row in rows if math.isfinite(row.value)]
    if not shown:
        return '<p class="note">Nothing to show.</p>'
    ends = [end for row in shown for end in (row.value, row.low, row.high) if end is not None and math.isfinite(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0
    left, room = LABEL_WIDTH, WIDTH - LABEL_WIDTH - VALUE_WIDTH - 8

    def x(value: float) -> float:
        return left + (value - low) / span * room

    height = ROW * len(shown) + 8
    parts = [_open(height, title)]
    for place, row in enumerate(shown):
        parts.append(_bar(row, place * ROW + 4, x(0.0), x(row.value)))
        if row.low is not None and row.high is not None:
            parts.append(_whisker(x(row.low), x(row.high), place * ROW + 4 + ROW / 2))
        parts.append(
            f'<text class="value" x="{WIDTH - 4}" y="{place * ROW + 26}" text-anchor="end">'
            f"{row.value:{number_format}}</text>"
        )
    parts.append(f'<line class="axis" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="2" y2="{height - 2}"/></svg>')
    return "".join(parts)


def _open(height: float, title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}"><title>{label}</title>'


def _bar(row: Bar, top: float, zero: float, end: float) -> str:
    label = row.label if len(row.label) <= 26 else row.label[:25] + "…"
    kind = "bar main" if row.is_main else "bar"
    return (
        f'<text class="{"name main" if row.is_main else "name"}" x="{LABEL_WIDTH - 14}" y="{top + 22:.1f}"'
        f' text-anchor="end">{escape(label)}</text>'
        f'<rect class="{kind}" x="{min(zero, end):.1f}" y="{top + 6:.1f}" width="{max(abs(end - zero), 0.5):.1f}"'
        f' height="{ROW - 12}" rx="3"/>'
    )


def _whisker(low: float, high: float, middle: float) -> str:
    # a halo in the colour of the card keeps the whisker legible on a dark bar
    path = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 5:.1f}v10M{high:.1f} {middle - 5:.1f}v10"
    return f'<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'


LINE_HEIGHT = 240
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 62, 16, 14, 40


def line(
    points: Sequence[tuple[float, float]], *, title: str, x_label: str, marked: float | None = None, digits: int = 3
) -> str:
    """Return a line through points in x order, with three grid lines; the point at x = ``marked`` gets a ring."""
    shown = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not shown:
        return '<p class="note">Nothing to show.</p>'
    x_low, x_high = shown[0][0], shown[-1][0]
    low, high = min(y for _, y in shown), max(y for _, y in shown)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    bottom = LINE_HEIGHT - MARGIN_BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        across = MARGIN_LEFT + share * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
        return across, bottom - (y - low) / (high - low) * (bottom - MARGIN_TOP)

    parts = [_open(LINE_HEIGHT, title)]
    for level in (low + pad, (low + high) / 2, high - pad):
        y = at(x_low, level)[1]
        parts.append(f'<line class="grid" x1="{MARGIN_LEFT}" x2="{WIDTH - MARGIN_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{MARGIN_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level:.{digits}f}</text>'
        )
    for x in _ticks(shown):
        parts.append(f'<text class="tick" x="{at(x, low)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{x:g}</text>')
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in (at(x, y) for x, y in shown))
    parts.append(f'<polyline class="line" points="{path}"/>')
    for x, y in shown:
        across, down = at(x, y)
        kind, radius = ("dot marked", 6) if x == marked else ("dot", 2.5)
        parts.append(
            f'<circle class="{kind}" cx="{across:.1f}" cy="{down:.1f}" r="{radius}">'
            f"<title>{escape(x_label)} {x:g}: {y:.{digits}f}</title></circle>"
        )
    middle = (MARGIN_LEFT + WIDTH - MARGIN_RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle:.0f}" y="{LINE_HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return "".join(parts) + "</svg>"


def _ticks(points: Sequence[tuple[float, float]]) -> list[float]:
    step = max(1, math.ceil(len(points) / 10))
    return [x for x, _ in points[::step]]


STYLE = """
:root{--paper:#fbfaf8;--card:#fff;--ink:#1d2126;--soft:#626a73;--rule:#e3e0da;--main:#0b6e5f;--bar:#b4bcc4;
--whisker:#30363d;--good:#0b6e5f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1c2024;--ink:#e8e6e3;--soft:#9aa3ad;--rule:#30363c;
--main:#3fb8a2;--bar:#59636e;--whisker:#d5d9dd;--good:#3fb8a2;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:32px 20px 64px}h1{font-size:30px;line-height:1.2;margin:0 0 20px}
h2{font-size:21px;margin:0 0 6px}h3{font-size:16px;margin:28px 0 6px}h4{margin:0 0 6px;font-size:14px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:22px 24px;margin:0 0 18px}
.lead{border-left:5px solid var(--main)}.lead p{margin:0 0 10px}.lead p:last-child{margin:0}
.note{color:var(--soft);font-size:14px;margin:4px 0 12px}.wide{overflow-x:auto}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}.even{color:var(--soft);font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:14px;margin:12px 0 0}
dt{color:var(--soft);font-size:13px}dd{margin:0;font-size:18px;font-weight:600;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:13px}th:first-child,td:first-child,.terms td{text-align:left}
td:first-child{white-space:nowrap}
tr.main td,td.best{font-weight:700}summary{cursor:pointer;color:var(--soft);font-size:14px;margin:10px 0}
.verdicts{margin:8px 0 0;padding-left:20px;font-size:15px}
.card{display:grid;grid-template-columns:1fr 1fr;gap:8px 24px;font-size:14px;padding:16px 0;
border-top:1px solid var(--rule)}
.card p{grid-column:1/-1;margin:0}.card ul,.card ol{margin:0;padding-left:22px}
.hit{font-weight:700;color:var(--good)}.hit::after{content:" \\2713"}
@media(max-width:560px){.card{grid-template-columns:1fr}section{padding:16px}}
@media print{section{break-inside:avoid}}
svg{display:block;width:100%;height:auto;font:13px system-ui,sans-serif}svg text{fill:var(--ink)}
svg .main{font-weight:600}svg .tick{fill:var(--soft);font-size:12px}svg .value{font-variant-numeric:tabular-nums}
.bar{fill:var(--bar)}.bar.main{fill:var(--main)}.halo{stroke:var(--card);stroke-width:4;fill:none;stroke-linecap:round}
.whisker{stroke:var(--whisker);stroke-width:1.5;fill:none}
.axis{stroke:var(--soft);stroke-width:1}.grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke:var(--main);stroke-width:2}.dot{fill:var(--main)}
.dot.marked{fill:var(--card);stroke:var(--main);stroke-width:2.5}
"""
"""Style of the page and of the drawings in it, light and dark."""
