"""Write an evaluation as plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrec_trainer.figures import (
    aligned,
    bundle_rows,
    cold_rows,
    count_of,
    interval_text,
    main_metric,
    main_model,
    metric_names,
    number,
    task_title,
    value,
    verdict,
)


def table(metrics: Mapping[str, Any]) -> str:
    """Return each task as plain text: the models at the main cut-off, and the model against each baseline."""
    main, metric = main_model(metrics), main_metric(metrics)
    blocks = []
    for name, task in metrics["tasks"].items():
        k = metric.partition("@")[2]
        names = [one for one in metric_names(task["models"]) if one.partition("@")[2] == k]
        rows = [["", *names, f"{metric} 95 %"]]
        for model, values in task["models"].items():
            found = value(values.get(metric))
            mark = "* " if model == main else "  "
            rows.append([mark + model, *(number(value(values.get(one)).mean) for one in names), interval_text(found)])
        lines = [f"{task_title(name, task)} ({count_of(task)})", *aligned(rows)]
        for baseline, differences in task.get("differences", {}).items():
            found = value(differences.get(metric))
            lines.append(
                f"  {main} - {baseline}: {found.mean:+.4f} {interval_text(found, sign='+')} {metric}: {verdict(found)}"
            )
        blocks.append("\n".join(lines))
    if metrics.get("cold"):
        blocks.append("\n".join([f"Items without events ({count_of(metrics['cold'])})", *aligned(cold_rows(metrics))]))
    if metrics.get("bundle"):
        blocks.append("\n".join(["Bundle against the float model", *aligned(bundle_rows(metrics["bundle"]))]))
    return "\n\n".join(blocks)
