"""Show a training as it goes: a line an epoch, with throughput and an estimate of what remains."""

from __future__ import annotations

import json
from typing import Any

import click

from xrec_trainer.config import FitConfig


class EpochPrinter:
    """Prints each epoch's line to standard error, or as JSON to standard output."""

    def __init__(self, config: FitConfig, *, as_json: bool, epochs: int | None = None) -> None:
        """Take the number of all ``epochs`` where it is known before."""
        self.config, self.as_json, self.epochs = config, as_json, epochs
        self.best, self.best_epoch = -1.0, 0

    def __call__(self, line: dict[str, Any]) -> None:
        """Print one epoch."""
        if self.as_json:
            click.echo(json.dumps(line))
            return
        epochs_left, phase = self._remaining(line)
        ndcg = line["validation_ndcg@10"]
        validation = "" if ndcg is None else f"validation NDCG@10 {ndcg:.4f}  "
        click.echo(
            f"epoch {line['epoch']:3d}  loss {line['loss']:.4f}  {validation}"
            f"{line['tokens_per_s']:,.0f} events/s  {line['seconds']:.0f} s  "
            f"about {epochs_left * line['seconds'] / 60:.0f} min left ({phase})",
            err=True,
        )

    def _remaining(self, line: dict[str, Any]) -> tuple[int, str]:
        if self.epochs is not None:
            return self.epochs - line["epoch"], "int8 rows" if line["is_quantized"] else f"{self.epochs} epochs"
        if line["validation_ndcg@10"] > self.best:
            self.best, self.best_epoch = line["validation_ndcg@10"], line["epoch"]
        until = min(self.config.max_epochs, self.best_epoch + self.config.patience)
        phase = "int8 rows" if line["is_quantized"] else f"ends by epoch {until} unless it improves"
        return max(0, until - line["epoch"]) + self.config.quantized_epochs, phase
