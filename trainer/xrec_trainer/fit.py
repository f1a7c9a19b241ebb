"""Train a model: early stopping on validation NDCG@10, then some epochs with quantized item rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xrec_sdk.errors import DataError, UsageError
from xrec_sdk.history import DAY_MS

from xrec_trainer import content, dataset
from xrec_trainer.averaging import Average
from xrec_trainer.batches import Batch, next_batches, next_targets, prefix_batches, prefixes, windows
from xrec_trainer.choice import Chosen, choose_repeat_rule, choose_trend, sample
from xrec_trainer.config import FitConfig
from xrec_trainer.content import Features
from xrec_trainer.dataset import Catalogue, Log
from xrec_trainer.loss import full_cross_entropy, gbce, sampled_cross_entropy, smoothing
from xrec_trainer.model import Model
from xrec_trainer.neighbours import SharedRows, nearest_items
from xrec_trainer.run import Run, alone, claim, describe, load_run, read_features, save_json, save_tensors
from xrec_trainer.schedule import learning_rate
from xrec_trainer.splits import Study, make_study
from xrec_trainer.svd import svd_rows
from xrec_trainer.trend import trend_prior
from xrec_trainer.workers import Workers

NO_TARGETS = (
    "no training event can be learned as a target; lower burn_in_days or raise horizon_days with --setting, "
    "or name other events with --target"
)
Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """Where a training is; all of it goes into the checkpoint, so that a killed run goes on as if it had not been."""

    epoch: int = 0
    best_epoch: int = 0
    best_ndcg: float = -1.0
    quantized_done: int = 0
    is_quantizing: bool = False
    curve: list[dict[str, Any]] = field(default_factory=list)


def fit(
    data: Path,
    out: Path,
    config: FitConfig,
    report: Report = lambda line: None,
    study: Study | None = None,
    chosen: Chosen | None = None,
) -> Run:
    """Train on a prepared folder and write a run folder; an unfinished run in ``out`` is resumed.

    ``study`` is what ``make_study`` gives of the same data and split, so that several trainings read them once.
    ``chosen`` takes the place of validation. Raises UsageError ``usage.run_differs`` where ``out`` holds a run with
    other settings.
    """
    if config.learns_until != "validation" and chosen is None:
        raise UsageError(
            "usage.setting",
            f"learns_until is {config.learns_until!r}, which leaves nothing to choose the epochs on; fit without it, "
            "then call xrec-train refit",
        )
    workers = Workers()
    with alone(out) if workers.is_first else nullcontext():
        return _fit(data, out, config, report, study, chosen, workers)


def _fit(
    data: Path,
    out: Path,
    config: FitConfig,
    report: Report,
    study: Study | None,
    chosen: Chosen | None,
    workers: Workers,
) -> Run:
    if workers.is_first:
        _claim(out, data, config)
    workers.wait()
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    study = study or make_study(dataset.read(data, queries=config.queries), config)
    if workers.is_first and not (out / "checkpoint.pt").exists():
        content.save(out / "content.npz", content.learn(_described(study.catalogue, config)))
    workers.wait()
    features = read_features(out, data, study.catalogue, config)
    trainer = Trainer(study, features, config, out / "checkpoint.pt", report, workers, chosen)
    trainer.train()
    if workers.is_first:
        _write_run(trainer, data, out)
    workers.wait()
    return load_run(out, study=study)


def _write_run(trainer: Trainer, data: Path, out: Path) -> None:
    study, config, model = trainer.study, trainer.config, trainer.best_model()
    chosen = trainer.chosen or _choice(trainer, model)
    model.get_buffer("prior").copy_(trend_prior(study.log, study.train_mask, chosen.trend))
    facts = {
        **chosen.facts,
        "epochs": trainer.progress.epoch,
        "trend": asdict(chosen.trend) if chosen.trend else None,
        "learns_until": config.learns_until,
    }
    save_tensors(out / "model.pt", model.state_dict())
    save_json(out / "run.json", describe(config, data, chosen.repeat, facts))
    (out / "checkpoint.pt").unlink(missing_ok=True)


def _choice(trainer: Trainer, model: Model) -> Chosen:
    """Choose on validation what is no weight of the model; the repeat rule is chosen beside the trend."""
    study, config, progress = trainer.study, trainer.config, trainer.progress
    trend = choose_trend(model, study, config, trainer.validation)[0] if len(trainer.validation) else None
    model.get_buffer("prior").copy_(trend_prior(study.log, study.train_mask, trend))
    rule = choose_repeat_rule(model, study, config)
    facts = {"best_epoch": progress.best_epoch, "curve": progress.curve}
    return Chosen(progress.epoch - progress.quantized_done, progress.quantized_done, trend, rule, facts)


def _described(catalogue: Catalogue, config: FitConfig) -> list[dict[str, object]]:
    """Return what content is learned from: the entries of the warm items, or without ``content`` their category."""
    entries = catalogue.entries[: catalogue.warm]
    if config.content:
        return entries
    return [{"category": entry["category"]} if "category" in entry else {} for entry in entries]


def _claim(out: Path, data: Path, config: FitConfig) -> None:
    path = out / "config.json"
    if not (out / "checkpoint.pt").exists() and not (out / "model.pt").exists():
        path.unlink(missing_ok=True)  # what never began claims nothing
    wanted = {"config": config.to_json(), "data": str(data.resolve())}
    claim(path, wanted, "usage.run_differs", "a run with other settings")


class Trainer:
    """One training: model, optimizer and progress, saved together after each epoch.

    All random choices of an epoch follow from the seed, the epoch and the worker, so that no generator's state is kept.
    """

    def __init__(
        self,
        study: Study,
        features: Features,
        config: FitConfig,
        checkpoint: Path,
        report: Report,
        workers: Workers,
        chosen: Chosen | None = None,
    ) -> None:
        self.study, self.config, self.checkpoint, self.report = study, config, checkpoint, report
        self.workers, self.chosen = workers, chosen
        self.model = Model(config, study.log.vocabulary, features, study.catalogue.warm, study.log.queries)
        if config.initial_rows == "svd" and not checkpoint.exists():
            self.model.start_from(svd_rows(study.log, study.train_mask, config.width))
        if config.neighbours and study.catalogue.warm <= config.sampled_above:
            near = nearest_items(study.log, study.train_mask, study.catalogue.warm, config.neighbours)
            self.model.shared = SharedRows(near, config.width)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.average = Average(self.model, config.averaging)
        self.progress = Progress()
        self.best_state = deepcopy(self.model.state_dict())
        self.worth = target_worth(study, config)
        asked = study.validation[study.main_task]
        self.validation = asked.only(np.zeros(len(asked), np.bool_)) if chosen else sample(asked, config.seed)
        self.draw = _sampling_probability(study)
        self.log_q = torch.from_numpy(np.log(self.draw * config.samples).astype(np.float32))
        if checkpoint.exists():
            self._resume()

    def train(self) -> None:
        """Run epochs until the quantized ones are over."""
        progress = self.progress
        quantized_epochs = (self.chosen or self.config).quantized_epochs
        while not progress.is_quantizing or progress.quantized_done < quantized_epochs:
            if self._is_exhausted() and not progress.is_quantizing:
                self._begin_quantizing()
            else:
                self._epoch()
            self._save()

    def _is_exhausted(self) -> bool:
        progress, config = self.progress, self.config
        if self.chosen:
            return progress.epoch >= self.chosen.epochs
        return progress.epoch - progress.best_epoch >= config.patience or progress.epoch >= config.max_epochs

    def best_model(self) -> Model:
        """Return the model of the best validation score, or of the last epoch, with quantized item rows."""
        self.model.load_state_dict(self.best_state)
        self.model.fold_shared()
        self.model.is_quantized = True
        self.model.eval()
        return self.model

    def _begin_quantizing(self) -> None:
        self.model.load_state_dict(self.best_state)
        self.average = Average(self.model, self.config.averaging)
        self.model.is_quantized = self.progress.is_quantizing = True
        self.progress.best_ndcg = self._validate()
        self._set_rate(self.config.learning_rate * 0.1)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _epoch(self) -> None:
        progress, started = self.progress, time.monotonic()
        random = np.random.default_rng([self.config.seed, progress.epoch])
        workers = self.workers
        torch.manual_seed((self.config.seed * 1_000_003 + progress.epoch) * workers.count + workers.place)
        self.model.train()
        losses, tokens = [], 0
        batches = (batch for batch in self._batches(random) if len(batch.targets))
        for batch in workers.share(batches):
            losses.append(self._step(batch, random))
            tokens += batch.rows.numel() if batch else 0
        if not losses:
            raise DataError("data.no_targets", NO_TARGETS)
        if not np.isfinite(losses).all():
            raise DataError(
                "data.diverged",
                f"the loss became infinite in epoch {progress.epoch + 1}; lower --setting learning_rate",
            )
        trained_s = time.monotonic() - started
        progress.epoch += 1
        progress.quantized_done += progress.is_quantizing
        with self.average.applied(self.model):
            ndcg = self._validate()
            if self.chosen or ndcg > progress.best_ndcg:
                progress.best_ndcg, progress.best_epoch = ndcg, progress.epoch
                self.best_state = deepcopy(self.model.state_dict())
        line: dict[str, Any] = {"epoch": progress.epoch, "loss": float(np.mean(losses))}
        line["validation_ndcg@10"] = None if self.chosen else ndcg
        line["is_quantized"] = progress.is_quantizing
        progress.curve.append(line)
        if workers.is_first:
            self.report({**line, "seconds": time.monotonic() - started, "tokens_per_s": tokens / max(trained_s, 1e-9)})

    def _batches(self, random: np.random.Generator) -> Iterator[Batch]:
        log, train_end, config = self.study.log, self.study.train_end, self.config
        is_target = self.worth > 0
        if config.horizon_days == 0:
            spans = windows(log.user_start[:-1], train_end, config.max_history, random)
            target_of = next_targets(log, train_end, is_target)
            return next_batches(log, spans, target_of, self.worth, config.batch_tokens, random)
        horizon_ms = int(config.horizon_days * DAY_MS)
        cuts = prefixes(log, train_end, is_target, _begin_ms(log, config), horizon_ms, config.prefixes, random)
        return prefix_batches(log, cuts, self.worth, config.batch_tokens, random)

    def _step(self, batch: Batch | None, random: np.random.Generator) -> float:
        if not self.progress.is_quantizing:
            self._set_rate(learning_rate(self.config, self.progress.epoch, self.average.steps))
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        if batch:
            mean = self._loss(batch, random)
            mean.backward()  # type: ignore[no-untyped-call]
            loss = float(mean.detach())
        loss = self.workers.average_gradients(self.model, loss, float(batch.weights.sum()) if batch else 0.0)
        self.optimizer.step()
        self.average.update(self.model)
        return loss

    def _loss(self, batch: Batch, random: np.random.Generator) -> Tensor:
        table = self.model.item_table()
        with torch.autocast(table.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            rows = self.model.history_rows(batch.rows, table)
            users = self.model.encoder(rows, batch.events, batch.devices, batch.gaps)
        table = table[: self.study.catalogue.warm]
        asked = users.flatten(0, 1)[batch.asked].float(), table, batch.places, batch.targets, batch.weights
        if self.config.loss == "gbce":
            drawn = torch.from_numpy(random.choice(len(table), size=self.config.samples))
            return gbce(*asked, drawn, self.config.gbce_calibration)
        if len(table) > self.config.sampled_above:
            drawn = torch.from_numpy(random.choice(len(table), size=self.config.samples, p=self.draw))
            loss = sampled_cross_entropy(*asked, drawn, self.log_q)
        else:
            loss = full_cross_entropy(*asked)
        return loss + smoothing(*asked, self.config.label_smoothing) if self.config.label_smoothing else loss

    def _validate(self) -> float:
        if len(self.validation) == 0:
            return 0.0
        score = choose_trend(self.model, self.study, self.config, self.validation)[1] if self.workers.is_first else 0.0
        return self.workers.agree(score)

    def _save(self) -> None:
        if not self.workers.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            "best": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
            "progress": vars(self.progress),
        }
        save_tensors(self.checkpoint, state)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best_state = state["best"]
        self.progress = Progress(**state["progress"])
        self.model.is_quantized = self.progress.is_quantizing
        self.average.restore(state["average"])


def target_worth(study: Study, config: FitConfig) -> NDArray[np.float32]:
    """Return what each event of the log counts in the loss as a target, (E,) float32: 0 where it is not learned."""
    log = study.log
    worth_of_code = np.zeros(log.vocabulary.event_count, dtype=np.float32)
    for name, weight in (*config.auxiliary_targets, *((name, 1.0) for name in config.targets)):
        worth_of_code[log.vocabulary.event_codes([name])] = weight
    worth: NDArray[np.float32] = worth_of_code[log.event]
    is_learned = (log.item >= 0) & (log.item < study.catalogue.warm)
    worth[(log.at_ms < _begin_ms(log, config)) | ~is_learned] = 0
    if not config.learns_repeats:
        pair = log.user.astype(np.int64) * log.item_count + log.item
        is_target = np.isin(log.event, log.vocabulary.event_codes(config.targets))
        _, first = np.unique(pair * 2 + is_target, return_index=True)  # a purchase after a view is new
        is_first = np.zeros(len(log), dtype=np.bool_)
        is_first[first] = True
        worth[~is_first] = 0
    return worth


def _begin_ms(log: Log, config: FitConfig) -> int:
    return int(log.at_ms.min()) + int(config.burn_in_days * DAY_MS)


def _sampling_probability(study: Study) -> NDArray[np.float64]:
    counts = np.bincount(study.log.item[study.train_mask], minlength=study.log.item_count)[: study.catalogue.warm]
    weights = np.maximum(counts, 1).astype(np.float64) ** 0.75
    probability: NDArray[np.float64] = weights / weights.sum()
    return probability
