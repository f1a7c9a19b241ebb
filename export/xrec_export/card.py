"""Write card.md, the model card: what the bundle is, what was measured, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from xrec_sdk.history import DAY_MS
from xrec_sdk.manifest import Manifest

from xrec_export.budget import text
from xrec_export.certificate import Certificate
from xrec_export.export_model import ExportModel
from xrec_export.parity import TOP, RuntimeParity


def render(model: ExportModel, draft: Manifest, certificate: Certificate) -> str:
    """Return the card as Markdown."""
    parity = certificate.parity
    vocabulary = model.vocabulary
    lines = [
        f"# {draft.name}, release {draft.release}",
        "",
        f"Made {draft.created_at}. {len(model.ids):,} items, width {model.item_table.shape[1]}, stored in "
        f"{draft.table_format}, histories of up to {vocabulary.max_history} events.",
        "",
        f"- Events: {', '.join(vocabulary.events)}",
        f"- Devices: {', '.join(vocabulary.devices) or 'none named'}",
        f"- Seen items ({', '.join(model.seen_events) or 'no event'}): {'left out' if model.filter_seen else 'kept'}, "
        "unless the app says otherwise.",
        f"- Repeat rule: {_repeat(model)}",
        *_ranker(model),
        "",
        "## What the format costs",
        "",
        f"Measured on {parity.cases} {_users(model)}, the float model against this bundle on each runtime; differences "
        "with their 95 % intervals by a paired bootstrap over users.",
        "",
        f"| runtime | overlap of the top {TOP} | Kendall's tau | NDCG@{TOP} | less float's {parity.ndcg_float:.4f} |",
        "| --- | --- | --- | --- | --- |",
        *(_runtime(name, found) for name, found in parity.runtimes.items()),
        "",
        *_budget(certificate),
        "## Training",
        "",
        *(_facts(model.facts) or ["Nothing was recorded."]),
        "",
        "## Limits",
        "",
        "- The scores order items for one user; they are no probabilities and do not compare between users.",
        "- Items, events and devices that are not in the bundle are unknown to it until the next release.",
        "- A user without a known history gets the items that were popular at training time.",
        "",
    ]
    return "\n".join(lines)


def _users(model: ExportModel) -> str:
    is_known = model.facts.get("learns_until") == "end"
    return "users, whose answers the model has learned" if is_known else "held-out users"


def _runtime(name: str, found: RuntimeParity) -> str:
    low, high = found.ndcg_difference_95
    difference = f"{found.ndcg_difference:+.5f} [{low:+.5f}, {high:+.5f}]"
    return f"| {name} | {found.overlap:.4f} | {found.kendall_tau:.4f} | {found.ndcg:.4f} | {difference} |"


def _budget(certificate: Certificate) -> list[str]:
    if not certificate.lines:
        tolerance = certificate.tolerance
        asked = (
            f"an overlap of at least {tolerance.min_overlap:g}, a loss of at most {tolerance.max_ndcg_loss:.2%} of NDCG"
        )
        return [f"Asked: {asked}; the same lists on every runtime.", ""]
    speed = certificate.speed
    where = "" if speed is None else f" Measured on {speed.machine}, threads: {speed.threads}."
    rows = [f"| {line.name} | {text(line.found)} | {text(line.limit)} |" for line in certificate.lines]
    return [
        "## What it costs",
        "",
        f"The release's budget, which it keeps.{where}",
        "",
        "| limit | found | asked |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _ranker(model: ExportModel) -> list[str]:
    if model.ranker is None:
        return []
    days = model.ranker.horizon_ms / DAY_MS
    return [f"- Probability: of {' or '.join(model.ranker.events)} within {days:g} days from now."]


def _repeat(model: ExportModel) -> str:
    if model.repeat is None:
        return "none"
    days = model.repeat.half_life_ms / DAY_MS
    return f"weight {model.repeat.weight:g}, half-life {days:g} days, events {', '.join(model.repeat.events)}"


def _facts(facts: Mapping[str, object], depth: int = 0) -> list[str]:
    lines = []
    for name, value in facts.items():
        line = f"{'  ' * depth}- {name}"
        if isinstance(value, Mapping):
            lines += [f"{line}:", *_facts(value, depth + 1)]
        elif isinstance(value, (list, tuple)) and any(isinstance(entry, Mapping) for entry in value):
            lines.append(f"{line}: {len(value)} entries, in manifest.json")
        else:
            lines.append(f"{line}: {value:.4g}" if isinstance(value, float) else f"{line}: {value}")
    return lines
