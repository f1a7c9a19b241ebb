"""Write a file so that a power cut takes nothing of it back."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write the file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
