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
        raise missing(extra, cause) from cause


def missing(extra: str, cause: ImportError) -> UsageError:
    """Return the error that names the extra where an import failed."""
    return UsageError("usage.extra_missing", f"{cause}; install what is missing with: pip install 'xrec[{extra}]'")
