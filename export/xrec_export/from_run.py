"""Read a training run folder as the model and the held-out cases that export needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn
from xrec_trainer.run import load_run

from xrec_export.export_model import ExportModel, ParityCase, excluding
from xrec_export.export_ranker import ranker_of


class LastPosition(nn.Module):
    """A trainer's encoder asked for its last position only."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, rows: Tensor, events: Tensor, devices: Tensor, gaps: Tensor) -> Tensor:
        """(B, L, D) float and three (B, L) int -> (B, D)."""
        return self.encoder(rows, events, devices, gaps, last_only=True)  # type: ignore[no-any-return]


def load(folder: Path, case_limit: int = 1000) -> tuple[ExportModel, list[ParityCase]]:
    """Return the run's model and up to ``case_limit`` cases; raise DataError where the folder has no finished run."""
    run = load_run(folder)
    model = run.model.eval()
    table = model.item_table().detach().cpu().numpy().astype(np.float32)
    prior = model.get_buffer("prior").cpu().numpy().astype(np.float32)
    exported = ExportModel(
        encoder=LastPosition(model.encoder).cpu().eval(),
        item_table=table,
        ids=run.catalogue.ids,
        entries=run.catalogue.entries,
        categories=run.catalogue.categories,
        vocabulary=run.vocabulary,
        seen_events=tuple(run.seen_events),
        filter_seen=run.filter_seen,
        repeat=run.repeat,
        prior=prior if prior.any() else None,
        ranker=ranker_of(run),
        query_rows=model.bucket_rows().detach().cpu().numpy() if run.config.queries else None,
        facts={name: value for name, value in run.facts.items() if name != "curve"},
    )
    return exported, [excluding(*case) for case in run.parity_cases(case_limit)]
