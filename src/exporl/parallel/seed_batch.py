"""Several runs in one program: what their threads ask for at the same time is computed in one
batched call."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from exporl.algos import Algorithm
from exporl.types import Mode

ACTING: tuple[Mode, ...] = get_args(Mode)
ORDER = (*ACTING, "pretrain", "critic_pretrain", "online")
"""Who is served first when runs ask for different things: those that are behind catch up."""


@dataclasses.dataclass
class _Request:
    run: int
    kind: tuple[str, Any]
    args: tuple[Any, ...]
    result: Any = None
    error: Exception | None = None
    done: bool = False


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _compiled_stack(*trees: Any) -> Any:
    return _stack(trees)


def _take(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _turn(kind: tuple[str, Any]) -> tuple[int, str]:
    return ORDER.index(kind[0]), repr(kind)


def _act_of_all(act: Callable[..., Any], params: Any, observation: Any, keys: Sequence[Any]) -> Any:
    return jax.vmap(act)(params, observation, jnp.stack(keys))


class SeedBatch:
    """Runs of one configuration that differ in their seed, each in a thread of its own, computed in
    one batch.

    Every run keeps its own state. A call waits until every run that still goes on has asked for
    something; then all that asked for the same thing are answered by one `vmap` over the seeds.
    """

    def __init__(self, num_runs: int, stop: threading.Event):
        """For `num_runs` runs. All of them have to join or to leave. Once `stop` is set, they stop
        at one step."""
        self.stop = threading.Event()
        """What the runs have to watch: set between two calls, so that no run is left alone in a
        step."""
        self._asked_to_stop, self._num_runs, self._going_on = stop, num_runs, num_runs
        self._waiting: list[_Request] = []
        self._changed, self._algorithm = threading.Condition(), None
        self._stacked: dict[str, tuple[list[Any], Any]] = {}

    def join(self, run: int, algorithm: Algorithm) -> Algorithm:
        """The same algorithm for the run of this index, with functions that wait for the other
        runs."""
        with self._changed:
            if self._algorithm is None:
                self._algorithm = algorithm
                self._vmapped = self._compile(algorithm)
            shared = self._algorithm

        def update(state, batches, key, *, phase="online"):
            return self._ask(run, (phase, jnp.shape(batches.reward)), (state, batches, key))

        def act(acting, observation, key, *, mode="explore"):
            shapes = tuple(sorted((entry, np.shape(value)) for entry, value in observation.items()))
            return self._ask(run, (mode, shapes), (acting, observation, key))

        return shared._replace(update=update, act=act)

    def leave(self) -> None:
        """A run has ended: the others no longer wait for it."""
        with self._changed:
            self._going_on -= 1
            self._serve()

    def _compile(self, algorithm: Algorithm) -> dict[str, Any]:
        def update(states, batches, keys, phase):
            one = functools.partial(algorithm.update, phase=phase)
            result = jax.vmap(one)(_stack(states), _stack(batches), jnp.stack(keys))
            return [_take(result, i) for i in range(len(states))]

        vmapped: dict[str, Any] = {
            "update": jax.jit(update, static_argnames="phase", donate_argnames="states")
        }
        for mode in ACTING:
            act = functools.partial(algorithm.act, mode=mode)
            vmapped[mode] = jax.jit(functools.partial(_act_of_all, act))
        return vmapped

    def _ask(self, run: int, kind: tuple[str, Any], args: tuple[Any, ...]) -> Any:
        request = _Request(run, kind, args)
        with self._changed:
            self._waiting.append(request)
            self._serve()
            while not request.done:
                self._changed.wait()
        if request.error is not None:
            raise request.error
        return request.result

    def _serve(self) -> None:
        if not self._waiting or len(self._waiting) < self._going_on:
            return
        first = min((request.kind for request in self._waiting), key=_turn)
        group = sorted(
            (r for r in self._waiting if r.kind == first), key=lambda request: request.run
        )
        if self._asked_to_stop.is_set() and len(group) == self._going_on:
            self.stop.set()
        self._waiting = [request for request in self._waiting if request.kind != first]
        try:
            answer = self._act if first[0] in ACTING else self._update
            for request, result in zip(group, answer(first[0], group), strict=True):
                request.result = result
        except Exception as error:
            for request in group:
                request.error = error
        for request in group:
            request.done = True
        self._changed.notify_all()

    def _update(self, phase: str, group: list[_Request]) -> list[Any]:
        states, batches, keys = (
            list(column) for column in zip(*(r.args for r in group), strict=True)
        )
        return self._vmapped["update"](states, batches, keys, phase=phase)

    def _act(self, name: str, group: list[_Request]) -> list[Any]:
        """One compiled shape, whoever asks: the first request fills up the batch."""
        padded = group + group[:1] * (self._num_runs - len(group))
        params, observations, keys = (
            list(column) for column in zip(*(r.args for r in padded), strict=True)
        )
        observation = {
            entry: np.stack([each[entry] for each in observations]) for entry in observations[0]
        }
        decisions = jax.device_get(
            self._vmapped[name](self._joined(name, params), observation, keys)
        )
        return [_take(decisions, i) for i in range(len(group))]

    def _joined(self, name: str, params: list[Any]) -> Any:
        """Acting parameters, stacked; the same arrays as last time are not stacked again."""
        leaves = jax.tree.leaves(params)
        known, stacked = self._stacked.get(name, ([], None))
        if len(known) != len(leaves) or any(a is not b for a, b in zip(known, leaves, strict=True)):
            self._stacked.clear()
            stacked = _compiled_stack(*params)
            self._stacked[name] = leaves, stacked
        return stacked
