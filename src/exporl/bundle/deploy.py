"""A policy as an ONNX file: normalised observations and random draws in, a chunk in [-1, 1] out."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from exporl.acting.policy import Policy
from exporl.bundle.primitives import NotInOnnx
from exporl.bundle.tracing import Key, Missing, Tracer, drawn
from exporl.randomness import EVALUATE, run_key

OBSERVATION = "observation."
"""What the names of inputs begin with that are entries of an observation."""
ACTION = "action"
"""The only output: [1, h, a]."""
TOLERANCE = 1e-5
"""Most that an action in [-1, 1] may differ from the policy's."""


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A policy's acting as a program of its own."""

    policy: Policy
    model: bytes
    """The ONNX file."""
    _draw: Any

    def noise(self, seed: int) -> dict[str, np.ndarray]:
        """The draws, by input, that `Policy.act(observation, seed=seed)` makes."""
        draws = jax.device_get(self._draw(run_key(0, EVALUATE, seed)))
        return {name: np.asarray(array) for name, array in draws.items()}

    def feed(self, observation: Any, seed: int) -> dict[str, np.ndarray]:
        """All inputs for one observation in the environment's units."""
        batch, _ = self.policy.interface.batch(observation)
        seen = batch if self.policy.normalizer is None else self.policy.normalizer(batch)
        return {OBSERVATION + name: value for name, value in seen.items()} | self.noise(seed)


def deploy(policy: Policy) -> Deployed:
    """The policy, as it was deployed, as an ONNX file.

    Raises:
        ModuleNotFoundError: the package onnx is not installed.
        NotInOnnx: it acts in a way that has no counterpart there; says which.
    """
    spec, mode = policy.interface.spec, policy.mode
    seen = {
        name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, shape, dtype in spec.observation
    }
    act = functools.partial(policy.algorithm.act, mode=mode)

    def action(parameters: Any, observation: Any, key: Any) -> Any:
        """The chunk alone."""
        return act(parameters, observation, key).action

    closed = jax.make_jaxpr(action)(policy.parameters, seen, run_key(0, EVALUATE))
    tracer = Tracer()
    known = [np.asarray(leaf) for leaf in jax.tree.leaves(policy.parameters)]
    entries = [
        tracer.graph.input(OBSERVATION + name, (1, *shape), np.dtype(dtype))
        for name, shape, dtype in sorted(spec.observation)
    ]
    (result,) = tracer.run(closed, [*known, *entries, Key()])
    if isinstance(result, Missing):
        raise NotInOnnx(result.why)
    assert not isinstance(result, Key), "actions are numbers"
    about = f"exporl policy of {policy.interface.task}, mode {mode}, {policy.checkpoint_name}"
    shape = (1, spec.chunk_length, spec.action_dim)
    model = tracer.graph.model(tracer.graph.named(result), shape, ACTION, about)
    return Deployed(policy, model, jax.jit(functools.partial(drawn, closed)))


def session_of(model: bytes | str) -> Any:
    """An onnxruntime session on one core.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The chunk [h, a] that a session makes of its inputs, in [-1, 1] but for rounding."""
    wanted = {each.name for each in session.get_inputs()}
    given = {name: array for name, array in feed.items() if name in wanted}
    return session.run([ACTION], given)[0][0]
