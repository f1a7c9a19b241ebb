"""Show what an evaluation found: one page of HTML that stands alone.

It reads one plain dict, which ``metrics.json`` holds. A *value* is a number or ``{"mean", "low", "high"}``; only
``tasks`` is required, and what is missing is not shown::

    {"title": str, "model": str (default "xrec": the one in ``models`` that the page is about),
     "main_metric": str (default "ndcg@10"),
     "dataset": {label: str or number, ...}                       facts, shown in this order
     "tasks": {task: {
         "title": str, "cases": int, "users": int,
         "models": {model: {"ndcg@10": value, ...}},
         "differences": {baseline: {"ndcg@10": value, ...}},      the model minus the baseline, paired
         "traits": {model: {"coverage@10": number, ...}},         metrics.list_traits
         "per_device": {model: {device: {"cases": int, "ndcg@10": value, ...}}},       metrics.by_group
         "per_history": {model: {events before: {"cases": int, "ndcg@10": value, ...}}}}}
     "curve": [{"epoch": int, "loss": float, "validation_ndcg@10": float}, ...], "best_epoch": int,
     "bundle": {"size_bytes": int, "cases": int, "overlap@10": share of places that hold the same items,
                "metrics": {"ndcg@10": {"float", "bundle", "difference": values}}},
     "cold": {"items": int, "cases": int, "users": int,           items that are known by their content alone (cold.py)
              "among": {what is ranked: {"models": {model: {"hr@10": value, "ndcg@10": value}}, "differences": too}}},
     "examples": [{"device": str, "history": [title, ...], "recommended": [{"title": str, "is_hit": bool}, ...],
                   "chosen": [title, ...]}],
     "ranker": what ranker.json holds,
     "notes": [str, ...]}
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from xrec_trainer import reliability
from xrec_trainer.figures import (
    Value,
    bundle_rows,
    cold_rows,
    count_of,
    main_metric,
    main_model,
    metric_names,
    metric_title,
    model_title,
    number,
    task_title,
    value,
    verdict,
)
from xrec_trainer.plots import STYLE, Bar, bars, line

GLOSSARY = (
    ("Users with a hit (hr@10)", "share of users who find one right item or more among the first 10"),
    ("Share found (recall@10)", "of what a user went on to choose, the share that stood among the first 10"),
    ("Share right (precision@10)", "of the 10 items shown, the share that the user went on to choose"),
    ("F1@10", "one number for both of those (their harmonic mean)"),
    ("NDCG@10", "hits count, and count more near the top; 1 is a perfect list"),
    ("MRR@10", "one divided by the place of the first right item, on average"),
    ("Interval", "draw the users anew, as often as you like: 95 of 100 draws give a value inside it"),
)


def page(metrics: Mapping[str, Any]) -> str:
    """Return the report as one HTML page with its style and drawings inside; it loads and runs nothing."""
    title = str(metrics.get("title", "How good are the recommendations?"))
    parts = [_headline(metrics), _facts(metrics.get("dataset", {}))]
    parts += [_task(name, task, metrics) for name, task in metrics["tasks"].items()]
    parts += [
        _cold(metrics),
        reliability.section(metrics.get("ranker")),
        _bundle(metrics.get("bundle")),
        _curve(metrics),
        _examples(metrics.get("examples", [])),
        _words(metrics),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n</main></body></html>\n"
    )


def write_page(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write the page whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(page(metrics), encoding="utf-8")
    os.replace(part, path)


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]], main: str | None = None) -> str:
    # the row that begins with ``main`` is set in bold
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = []
    for row in rows:
        kind = ' class="main"' if main is not None and row[0] == main else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return f'<div class="wide"><table><tr>{heads}</tr>{"".join(lines)}</table></div>'


def _headline(metrics: Mapping[str, Any]) -> str:
    sentences = []
    main, metric = main_model(metrics), main_metric(metrics)
    k = metric.partition("@")[2]
    for name, task in metrics["tasks"].items():
        found = value(task["models"].get(main, {}).get(f"hr@{k}"))
        differences = {one: values for one, values in task.get("differences", {}).items() if metric in values}
        baselines = {one: value(task["models"].get(one, {}).get(metric)).mean for one in differences}
        text = f"<strong>{escape(task_title(name, task))}.</strong> "
        if math.isfinite(found.mean):
            text += f"{found.mean * 100:.0f} of 100 users find a right item among the first {escape(k)}. "
        best = max(baselines, key=lambda one: (math.isfinite(baselines[one]), baselines[one]), default=None)
        if best is not None:
            difference = value(differences[best][metric])
            share = f" ({difference.mean / baselines[best]:+.0%})" if baselines[best] > 0 else ""
            text += (
                f"Against the strongest plain method, {escape(model_title(best))}, {escape(metric.upper())} is"
                f' {difference.mean:+.4f}{share}: <span class="{_kind(difference)}">{verdict(difference)}</span>.'
            )
        sentences.append(f"<p>{text}</p>")
    return f'<section class="lead">{"".join(sentences)}</section>'


def _kind(difference: Value) -> str:
    return {"better": "good", "worse": "bad"}.get(verdict(difference), "even")


def _facts(dataset: Mapping[str, Any]) -> str:
    if not dataset:
        return ""
    cells = []
    for label, fact in dataset.items():
        shown = f"{fact:,}" if isinstance(fact, int | float) else str(fact)
        cells.append(f"<div><dt>{escape(str(label))}</dt><dd>{escape(shown)}</dd></div>")
    return f"<section><h2>The data</h2><dl>{''.join(cells)}</dl></section>"


def _rows(models: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[list[str]]:
    return [
        [model_title(model), *(number(value(values.get(one)).mean) for one in names)]
        for model, values in models.items()
    ]


def _task(name: str, task: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    main, metric = main_model(metrics), main_metric(metrics)
    found = {model: value(values.get(metric)) for model, values in task["models"].items()}
    drawn = [Bar(model_title(model), *one, is_main=model == main) for model, one in found.items()]
    names = metric_names(task["models"])
    rows = _rows(task["models"], names)
    parts = [
        f"<section><h2>{escape(task_title(name, task))}</h2>",
        f'<p class="note">{escape(count_of(task))}. Every item of the catalogue is ranked for every case.'
        f" Bars show {escape(metric.upper())}; the whisker is the 95 % interval.</p>",
        bars(drawn, title=f"{metric} of each model: {task_title(name, task)}"),
        "<details><summary>All metrics</summary>",
        _html_table(["", *map(metric_title, names)], rows, model_title(main)),
        "</details>",
        _differences(task.get("differences", {}), main, metric),
        _groups("By device", "Device", task.get("per_device", {}), metric),
        _groups("By length of the history", "Events before", task.get("per_history", {}), metric),
        _traits(task.get("traits", {}), model_title(main)),
    ]
    return "".join(parts) + "</section>"


def _differences(differences: Mapping[str, Mapping[str, Any]], main: str, metric: str) -> str:
    found = {baseline: value(values.get(metric)) for baseline, values in differences.items()}
    if not found:
        return ""
    drawn = [Bar(model_title(baseline), *one) for baseline, one in found.items()]
    words = "".join(
        f'<li><span class="{_kind(one)}">{verdict(one)}</span> than {escape(model_title(baseline))}</li>'
        if verdict(one) in ("better", "worse")
        else f'<li><span class="even">{verdict(one)}</span> from {escape(model_title(baseline))}</li>'
        for baseline, one in found.items()
    )
    return (
        f"<h3>{escape(main)} minus each plain method</h3>"
        f'<p class="note">The same users were measured with both, so where the whisker does not cross zero, chance in'
        f" who was measured does not explain the difference.</p>"
        f"{bars(drawn, title=f'{main} minus each baseline, {metric}', number_format='+.4f')}"
        f'<ul class="verdicts">{words}</ul>'
    )


def _groups(title: str, what: str, models: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str) -> str:
    labels = list(dict.fromkeys(label for groups in models.values() for label in groups))
    if not labels:
        return ""
    lines = []
    for label in labels:
        found = [value(groups.get(label, {}).get(metric)).mean for groups in models.values()]
        best = max((one for one in found if math.isfinite(one)), default=None)
        cases = next((groups[label]["cases"] for groups in models.values() if "cases" in groups.get(label, {})), None)
        kinds = [' class="best"' if one == best else "" for one in found]
        cells = "".join(f"<td{kind}>{number(one)}</td>" for kind, one in zip(kinds, found, strict=True))
        count = "" if cases is None else f"{int(cases):,}"
        lines.append(f"<tr><td>{escape(str(label))}</td><td>{count}</td>{cells}</tr>")
    heads = "".join(f"<th>{escape(model_title(model))}</th>" for model in models)
    return (
        f'<h3>{escape(title)}</h3><div class="wide"><table><tr><th>{escape(what)}</th><th>Cases</th>{heads}</tr>'
        f'{"".join(lines)}</table></div><p class="note">{escape(metric.upper())}; the best of each line is bold.</p>'
    )


def _traits(traits: Mapping[str, Mapping[str, Any]], main: str) -> str:
    if not traits:
        return ""
    names = metric_names(traits)
    rows = _rows(traits, names)
    return f"<h3>What the lists show of the catalogue</h3>{_html_table(['', *map(metric_title, names)], rows, main)}"


def _cold(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("cold"):
        return ""
    head, *rows = cold_rows(metrics)
    return (
        f'<section><h2>Items without events</h2><p class="note">{metrics["cold"]["items"]:,} items are known by their'
        f" content alone. {escape(count_of(metrics['cold']))} chose such an item; only those count as right.</p>"
        f"{_html_table(head, rows)}</section>"
    )


def _bundle(bundle: Mapping[str, Any] | None) -> str:
    if not bundle:
        return ""
    facts = [f"{bundle['size_bytes'] / 1e6:.1f} MB" if "size_bytes" in bundle else "", count_of(bundle)]
    facts += [f"{bundle[key]:.1%} of the first {key[8:]} are the same" for key in bundle if key.startswith("overlap@")]
    head, *rows = bundle_rows(bundle)
    return (
        '<section><h2>What ships: the bundle against the float model</h2><p class="note">The bundle is the small file'
        f" that runs on the device. {escape(', '.join(fact for fact in facts if fact))}.</p>"
        f"{_html_table(head, rows)}</section>"
    )


def _curve(metrics: Mapping[str, Any]) -> str:
    curve = metrics.get("curve", [])
    if not curve:
        return ""
    best = metrics.get("best_epoch")
    quality = [(float(one["epoch"]), float(one["validation_ndcg@10"])) for one in curve]
    loss = [(float(one["epoch"]), float(one["loss"])) for one in curve]
    chosen = "" if best is None else f" The ring marks epoch {int(best)}, which was kept."
    return (
        f'<section><h2>How it learned</h2><p class="note">NDCG@10 on validation users after each epoch.{chosen}</p>'
        f"{line(quality, title='validation NDCG@10 by epoch', x_label='epoch', marked=best, digits=4)}"
        f'<p class="note">Training loss.</p>{line(loss, title="training loss by epoch", x_label="epoch", marked=best)}'
        "</section>"
    )


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for example in examples:
        shown = "".join(
            f'<li class="{"hit" if one.get("is_hit") else "miss"}">{escape(str(one["title"]))}</li>'
            for one in example.get("recommended", [])
        )
        history = "".join(f"<li>{escape(str(title))}</li>" for title in example.get("history", []))
        chosen = ", ".join(escape(str(title)) for title in example.get("chosen", []))
        device = f" on {escape(str(example['device']))}" if example.get("device") else ""
        cards.append(
            f'<div class="card"><div><h4>Had before</h4><ul>{history}</ul></div><div><h4>Was shown{device}</h4>'
            f"<ol>{shown}</ol></div><p><b>Then chose:</b> {chosen}</p></div>"
        )
    if not cards:
        return ""
    note = '<p class="note">A tick marks what the user then chose.</p>'
    return f"<section><h2>Examples</h2>{note}{''.join(cards)}</section>"


def _words(metrics: Mapping[str, Any]) -> str:
    terms = "".join(f"<tr><td>{escape(term)}</td><td>{escape(text)}</td></tr>" for term, text in GLOSSARY)
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in metrics.get("notes", []))
    told = f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""
    return f'<section><h2>Words</h2><table class="terms">{terms}</table>{told}</section>'
