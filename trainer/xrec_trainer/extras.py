"""Import what comes with an extra of the package, or name the extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from xrec_sdk.errors import UsageError


def load(module: str, extra: str) -> Any:
    """Return a module that ``pip install 'xrec[extra]'`` brings; raises UsageError ``usage.extra_missing``."""
    try:
        return import_module(module)
    except ImportError as cause:
        name = module.partition(".")[0]
        raise UsageError(
            "usage.extra_missing", f"{name} is not installed ({cause}); install it with: pip install 'xrec[{extra}]'"
        ) from cause
