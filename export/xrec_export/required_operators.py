"""Say which operators an onnxruntime that is built for one bundle must keep: required_operators.config.

The file goes to ``build.sh --include_ops_by_config``. onnxruntime rewrites a graph while it loads it and may put in an
operator that the file does not have, so the rewritten graphs are looked into too.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from xrec_sdk.bundle import open_bundle
from xrec_sdk.runtime import Runtime


def required_operators(path: Path) -> str:
    """Return the text of required_operators.config for a bundle; its signature is not checked."""
    bundle = open_bundle(path, allow_unsigned=True)
    names = set(bundle.manifest.operators)
    with tempfile.TemporaryDirectory(prefix="xrec-operators-") as folder:
        number = itertools.count()

        def options() -> Any:
            made = onnxruntime.SessionOptions()
            made.optimized_model_filepath = str(Path(folder) / f"{next(number)}.onnx")
            made.log_severity_level = 4
            return made

        Runtime(bundle, session_options=options)
        for written in Path(folder).glob("*.onnx"):
            names |= {node.op_type for node in onnx.load(str(written), load_external_data=False).graph.node}
    head = f"# {bundle.manifest.name}, release {bundle.manifest.release}"
    return f"{head}\nai.onnx;{bundle.manifest.opset};{','.join(sorted(names))}\n"


def write_required_operators(path: Path, target: Path) -> None:
    """Write the file whole or not at all."""
    part = target.with_name(target.name + ".part")
    part.write_text(required_operators(path), encoding="utf-8")
    os.replace(part, target)
