"""Sign a bundle that is one's own or not signed yet, after it has passed every check."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from xrec_sdk.bundle import open_bundle
from xrec_sdk.conformance import check_conformance
from xrec_sdk.errors import UsageError
from xrec_sdk.manifest import parse_manifest
from xrec_sdk.runtime import Runtime
from xrec_sdk.signature import sign

from xrec_export.keys import public_key
from xrec_export.staging import write


def sign_bundle(path: Path, private_pem: bytes, trusted_keys: Sequence[str] = ()) -> dict[str, object]:
    """Write manifest.sig into the folder ``path`` and return what was signed.

    A bundle that has a signature must have one of this key or of ``trusted_keys``. Raises BundleError where it does not
    verify or its golden cases fail, UsageError ``usage.bundle_folder`` for a zip.
    """
    if not path.is_dir() and path.exists():
        raise UsageError("usage.bundle_folder", f"{path} is not a folder; unpack the zip, sign it and pack it again")
    own = public_key(private_pem)
    bundle = open_bundle(path, trusted_keys=[own, *trusted_keys], allow_unsigned=True)
    cases = check_conformance(Runtime(bundle), bundle)
    manifest_bytes = (path / "manifest.json").read_bytes()
    if parse_manifest(manifest_bytes) != bundle.manifest:
        raise UsageError("usage.bundle_folder", f"{path} changed while it was checked; sign it again")
    # A part file inside the folder would be one that the manifest does not name.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
        write(Path(aside), {"manifest.sig": sign(manifest_bytes, private_pem)})
        os.replace(Path(aside) / "manifest.sig", path / "manifest.sig")
    return {"name": bundle.manifest.name, "release": bundle.manifest.release, "key": own, "golden_cases": cases}
