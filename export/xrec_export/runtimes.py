"""Ask every runtime at hand the same: onnxruntime here, onnxruntime on emulated CPUs, ONNX's own in NumPy."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from xrec_sdk.bundle import Bundle
from xrec_sdk.context import CONTEXT
from xrec_sdk.errors import GateError, UsageError
from xrec_sdk.history import History
from xrec_sdk.runtime import event_vectors, feeds_of

from xrec_export.lists import Answer, Bias, Lists, Questions, ask, onnxruntime_answer, save_questions

CPUS = ("Haswell", "Skylake-Client", "Nehalem")
"""AVX2 without VNNI, twice, where 8-bit by 8-bit products saturate; and no AVX at all."""
EMULATOR = "qemu-x86_64"
EMULATION_TIMEOUT_S = 3600


def named_cpus(names: Sequence[str]) -> tuple[str, ...]:
    """Return the CPUs that these names stand for; ``all`` is every one of CPUS."""
    return tuple(dict.fromkeys(cpu for name in names for cpu in (CPUS if name == "all" else (name,))))


def ask_all(path: Path, bundle: Bundle, questions: Questions, k: int, emulated: Sequence[str] = ()) -> dict[str, Lists]:
    """Return the lists of each runtime by its name, onnxruntime on this machine first.

    ``path`` is that of the open bundle. Raises UsageError ``usage.emulate`` where a CPU can't be emulated here, and
    GateError ``gate.runtime`` where a runtime can't answer at all.
    """
    runtime = f"onnxruntime {onnxruntime.__version__}"
    found = {f"{runtime}, {platform.machine()}": ask(onnxruntime_answer(bundle), questions, k)}
    found[f"onnx {onnx.__version__} reference in NumPy"] = ask(numpy_answer(bundle), questions, k)
    for cpu in emulated:
        found[f"{runtime}, emulated {cpu}"] = _ask_emulated(cpu, path, questions, k)
    return found


def numpy_answer(bundle: Bundle) -> Answer:
    """Return what runs the bundle's graphs with the evaluator in NumPy that defines ONNX's operators."""
    encoder, scorer = _evaluator(bundle.encoder, bundle), _evaluator(bundle.scorer, bundle)
    context = {} if bundle.manifest.ranker is None else {"context": np.zeros(len(CONTEXT), dtype=np.float32)}

    def answer(history: History, bias: Bias, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        user = np.zeros((1, bundle.manifest.width), dtype=np.float32)
        if len(history):
            codes = np.stack([history.rows, history.events, history.devices, history.gaps])[:, None]
            vectors = event_vectors(bundle, history.rows)[None]
            (user,) = encoder.run(["user"], feeds_of(bundle, vectors, codes, history.queries))
        feeds = {
            "user": user,
            "item_bias": bundle.bias.reshape(-1),
            "item_prior": bundle.prior.reshape(-1),
            "bias_rows": bias[0],
            "bias_values": bias[1],
            "k": np.array([k], dtype=np.int32),
            **context,
        }
        rows, scores = scorer.run(["top_rows", "top_scores"], feeds)
        is_allowed = np.isfinite(scores)
        return rows[is_allowed], scores[is_allowed]

    return answer


class GatherElements(OpRun):
    """That of onnx 1.23 fails beyond 64 elements."""

    op_domain = ""

    def _run(self, data: NDArray[Any], indices: NDArray[Any], axis: int = 0) -> tuple[NDArray[Any]]:
        return (np.take_along_axis(data, indices, axis=axis),)


def _evaluator(graph: bytes, bundle: Bundle) -> Any:
    model = onnx.load_model_from_string(graph)
    arrays = {"item_table": bundle.table, "item_scale": bundle.scale, "item_features": bundle.features}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(arrays[tensor.name]), tensor.name))
    return ReferenceEvaluator(model, new_ops=[GatherElements])


def _ask_emulated(cpu: str, path: Path, questions: Questions, k: int) -> Lists:
    with tempfile.TemporaryDirectory(prefix="xrec-emulated-") as name:
        asked, answered = Path(name) / "questions.npz", Path(name) / "lists.npz"
        save_questions(asked, questions)
        words = ["-m", "xrec_export.lists", str(path), str(asked), str(answered), str(k)]
        done = subprocess.run(
            [_emulator(), "-cpu", cpu, sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=EMULATION_TIMEOUT_S,
            check=False,
        )
        if "unable to find CPU model" in done.stderr:
            raise UsageError("usage.emulate", f"{EMULATOR} knows no CPU {cpu!r}; {EMULATOR} -cpu help lists them")
        if done.returncode != 0:
            raise GateError("gate.runtime", f"the bundle gives no answers on an emulated {cpu}: {done.stderr[-2000:]}")
        with np.load(answered, allow_pickle=False) as kept:
            return Lists(kept["rows"], kept["scores"])


def _emulator() -> str:
    found = shutil.which(EMULATOR)
    if found is None or platform.machine() not in ("x86_64", "AMD64"):
        raise UsageError(
            "usage.emulate",
            f"{EMULATOR} is not installed, or this Python is not one for x86-64; install it (Debian: apt-get install "
            "qemu-user) or leave out --emulate",
        )
    return found
