"""ONNX files, run by onnxruntime: (observation, noise) -> action chunks, or without noise."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from exporl.external.base import OutsidePolicy
from exporl.external.named_files import present
from exporl.external.named_inputs import NOISE, named_inputs
from exporl.spec import Spec


class OnnxPolicy:
    """A model on one thread of the CPU; every sample is a row of its batch."""

    def __init__(self, session: Any, digest: bytes, reads: dict[str, tuple[str, ...]], spec: Spec):
        """A policy around an open session.

        Args:
            session: an `onnxruntime.InferenceSession`.
            digest: SHA-256 of the file.
            reads: input of the model -> the entries of an observation that make it up.
            spec: what the task shows, and the chunks of the run.
        """
        self._session, self._digest, self._reads = session, digest, reads
        self._chunk = (spec.chunk_length, spec.action_dim)
        self._noise = next((each for each in session.get_inputs() if each.name == NOISE), None)
        names = [name for entries in reads.values() for name in entries]
        kept = tuple(entry for entry in spec.observation if entry[0] in names)
        self.spec = Spec(kept, spec.action_dim, spec.chunk_length)

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """All samples of all observations in one call of the model."""
        rows, inputs = len(next(iter(observations.values()))), {}
        for name, entries in self._reads.items():
            parts = [observations[entry] for entry in entries]
            seen = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
            inputs[name] = np.repeat(seen, num, axis=0)
        if self._noise is not None:
            shape = (rows * num, *self._noise.shape[1:])
            inputs[NOISE] = np.random.default_rng(seed).standard_normal(shape, np.float32)
        made = np.asarray(self._session.run(None, inputs)[0])
        return made.reshape(rows, num, *self._chunk)

    def state(self) -> dict[str, np.ndarray]:
        """The digest of the file."""
        return {"sha256": np.frombuffer(self._digest, np.uint8)}


def open_onnx(path: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `onnx:PATH`. Its inputs have the names of the task's observation entries, or
    there is one, which all vectors of floats make up in the order of their names.

    Raises:
        ValueError: not a model, or inputs and outputs that do not fit; says which.
        FileNotFoundError: there is no file.
        ModuleNotFoundError: onnxruntime is not installed; says how to install it.
    """
    present(Path(path))
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this base policy needs onnxruntime: pip install 'exporl[onnx]'"
        ) from error
    content, options = Path(path).read_bytes(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would change the order of sums
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds of its own
        raise ValueError(f"{path} is not a model that onnxruntime can open: {error}") from error
    reads = _inputs(path, session, spec)
    _check_output(path, session, spec)
    return OnnxPolicy(session, hashlib.sha256(content).digest(), reads, spec)


def _inputs(path: str, session: Any, spec: Spec) -> dict[str, tuple[str, ...]]:
    """Input of the model -> entries of an observation."""
    shown = {name: shape for name, shape, _ in spec.observation}
    wanted = [each for each in session.get_inputs() if each.name != NOISE]
    reads = named_inputs(path, [each.name for each in wanted], spec)
    for each in wanted:
        entries = reads[each.name]
        alone = len(entries) == 1
        shape = shown[entries[0]] if alone else (sum(shown[name][0] for name in entries),)
        fixed = [(a, b) for a, b in zip(each.shape[1:], shape, strict=False) if isinstance(a, int)]
        if len(each.shape) != len(shape) + 1 or any(a != b for a, b in fixed):
            raise ValueError(
                f"{path} reads {each.name!r} in the shape {each.shape}; the task shows "
                f"{['b', *shape]} ({', '.join(entries)})."
            )
        if isinstance(each.shape[0], int):
            raise ValueError(
                f"{path} reads {each.shape[0]} rows at a time: export it with a batch axis of any "
                "length (dynamic_axes, dynamic_shapes)."
            )
    return reads


def _check_output(path: str, session: Any, spec: Spec) -> None:
    shape = session.get_outputs()[0].shape[1:]
    numbers = [size for size in shape if isinstance(size, int)]
    needed = spec.chunk_length * spec.action_dim
    if len(numbers) == len(shape) and int(np.prod(numbers)) != needed:
        raise ValueError(
            f"{path} makes {shape} numbers per row; the run needs {needed}: chunk_length="
            f"{spec.chunk_length} actions of {spec.action_dim}. A model of longer chunks: give "
            "--chunk-length."
        )
