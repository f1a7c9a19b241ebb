"""The certificate of a release: what was measured before it was signed, and the gate that it passed."""

from __future__ import annotations

from dataclasses import dataclass

from xrec_export import budget as budgets
from xrec_export import parity as parities
from xrec_export.budget import Budget, Line
from xrec_export.parity import Parity, Tolerance
from xrec_export.speed import Speed


@dataclass(frozen=True)
class Gate:
    """What a release must pass: its quality, a budget of what it may cost where there is one, CPUs to emulate."""

    tolerance: Tolerance
    budget: Budget | None = None
    cpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What was measured of a bundle: ``lines`` are those of the budget, ``speed`` where one of them needed it."""

    parity: Parity
    tolerance: Tolerance
    lines: tuple[Line, ...] = ()
    speed: Speed | None = None

    def check(self) -> None:
        """Raise GateError: ``gate.runtime``, ``gate.budget`` with every line, or ``gate.parity`` without a budget."""
        parities.check_runtimes(self.parity)
        if self.lines:
            budgets.check(self.lines)
        else:
            parities.check_quality(self.parity, self.tolerance)

    def to_manifest(self) -> dict[str, object]:
        """Return the certificate as the manifest holds it under ``parity``."""
        found = parities.to_manifest(self.parity, self.tolerance)
        return {**found, "budget": budgets.to_manifest(self.lines, self.speed)} if self.lines else found
