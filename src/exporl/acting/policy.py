"""A trained policy apart from the run that made it: no task, data, optimiser or simulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from exporl.acting.around import Seen, around, base_of, split_arrays
from exporl.acting.chunks import Chunks, playable
from exporl.acting.interface import Interface, read_interface
from exporl.acting.parameters import from_arrays
from exporl.acting.rows import act_each, ranked
from exporl.acting.saved_policy import (
    LEARNER,
    ActingOptions,
    check_unchanged,
    found_checkpoint,
    normalizer_of,
    warn_of_newer,
)
from exporl.algos import Algorithm
from exporl.data.episodes import Normalizer
from exporl.external import OutsideBase
from exporl.files import bundle, checkpoint
from exporl.files.beside import check_objects
from exporl.files.reading import read_object
from exporl.files.run_files import (
    CHECKPOINTS,
    CONFIG,
    POLICY,
    read_config,
    seed_runs,
)
from exporl.outside import Trust, check_trust
from exporl.randomness import EVALUATE, INIT, run_key, run_keys
from exporl.spec import state_spec
from exporl.suggest import closest
from exporl.types import Decision, KeyArray, Mode, Params

SEEDS = 2**32


class Policy:
    """A trained policy; `load_policy` makes one.

    Observations are the environment's own: a dictionary of arrays, or the array alone where the
    policy reads one entry; one observation, or many with a leading axis b. Entries that it does not
    read may be there or not. Actions are in the environment's own units as well.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        parameters: Params,
        interface: Interface,
        normalizer: Normalizer | None,
        *,
        mode: Mode = "evaluate",
        checkpoint_name: str = "",
        candidates: int | None = None,
        outside: OutsideBase | None = None,
    ):
        self.algorithm, self.interface, self.normalizer = algorithm, interface, normalizer
        self.parameters = jax.device_put(parameters)
        """What the algorithm acts with."""
        self.mode: Mode = mode
        """How it acts unless told otherwise: as it was deployed."""
        self.checkpoint_name = checkpoint_name
        """Where the parameters come from."""
        self.candidates = candidates
        """Actions that are ranked per observation; None where none are ranked."""
        self.outside = outside
        """The base policy from outside that proposes, if one does: acting is then no single
        compiled call."""
        self._chunks = Chunks(1, interface.execute_length)
        self._next_seed = 0

    @property
    def execute_length(self) -> int:
        """Actions played of each chunk."""
        return self.interface.execute_length

    @property
    def control_hz(self) -> float | None:
        """Actions per second; None where the task does not say."""
        return self.interface.control_hz

    def __repr__(self) -> str:
        """What it is and what it reads."""
        spec = self.interface.spec
        reads = ", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in spec.observation)
        return (
            f"Policy({self.interface.task}, {self.checkpoint_name}: reads {reads}; plays "
            f"{self.execute_length} of {spec.chunk_length} actions [{spec.action_dim}])"
        )

    def act(self, observation: Any, seed: int | None = None, mode: str | None = None) -> np.ndarray:
        """The chunk of actions to play.

        Args:
            observation: one, or many with a leading axis b.
            seed: decides every draw, of all b together. By default 0, 1, 2, ... call by call.
            mode: "evaluate", "explore" (as in training), "base" (the base policy alone) or
                "unedited"; by default as the policy was deployed.

        Returns:
            [h, a], or [b, h, a] for many: the h actions that are played of a chunk, in the
            environment's own units, shape and type.

        Raises:
            ValueError: an observation that does not fit, an unknown mode, or mode "base" without a
                base policy.
            FloatingPointError: the policy produced NaN.
        """
        batch, many = self.interface.batch(observation)
        decided = self._decide(batch, seed, mode).action
        action = self.interface.own_actions(decided[:, : self.execute_length])
        return action if many else action[0]

    def decide(
        self, observation: Any, seed: int | None = None, mode: str | None = None
    ) -> Decision:
        """The whole predicted chunk, and what there is to say about the choice.

        Arguments and errors are those of `act`.

        Returns:
            `action` [chunk length, a], or [b, ...] for many, in the environment's own units; `info`
            by name, a number each, or [b]. EXPO: "q", the value of the choice, its "index" among
            the candidates, and whether it was "edited".
        """
        batch, many = self.interface.batch(observation)
        decision = self._decide(batch, seed, mode)
        action, info = self.interface.own_actions(decision.action), decision.info
        if many:
            return Decision(action, info)
        return Decision(action[0], {name: value[0] for name, value in info.items()})

    def decide_each(self, batch: dict[str, np.ndarray], seeds: np.ndarray) -> list[Decision | None]:
        """A decision per observation, each with a seed of its own, in one compiled call, or one by
        one around a policy from outside: what `decide` says about each alone, to rounding, whatever
        the others are.

        Args:
            batch: the entries that the policy reads, as `Interface.batch` gives them: [b, ...].
                Compiled once per b.
            seeds: uint32 [b].

        Returns:
            One per observation, as `decide` returns it for one; None where the policy came to no
            number.
        """
        if self.outside is not None:
            return [self._decide_row(batch, row, int(seed)) for row, seed in enumerate(seeds)]
        observation = batch if self.normalizer is None else self.normalizer(batch)
        act = act_each(self.algorithm.act, self.mode)
        decided = act(self.parameters, observation, run_keys(0, EVALUATE, seeds))
        action, info = jax.device_get((decided.action, decided.info))
        result: list[Decision | None] = []
        for row, chunk in enumerate(action):
            if np.isfinite(chunk).all():
                said = {name: value[row] for name, value in info.items()}
                result.append(Decision(self.interface.own_actions(np.clip(chunk, -1, 1)), said))
            else:
                result.append(None)
        return result

    def _decide_row(self, batch: dict[str, np.ndarray], row: int, seed: int) -> Decision | None:
        """`decide` about one of several observations; None where the policy came to no number."""
        try:
            one = {name: value[row : row + 1] for name, value in batch.items()}
            decision = self._decide(one, seed, None)
        except FloatingPointError:
            return None
        action, info = self.interface.own_actions(decision.action[0]), decision.info
        return Decision(action, {name: value[0] for name, value in info.items()})

    def reset(self, seed: int | None = None) -> None:
        """An episode begins: `next_action` forgets the rest of its chunk.

        Args:
            seed: where seeds are counted from now on; by default they go on.
        """
        self._chunks.clear(0)
        if seed is not None:
            self._next_seed = _checked(seed)

    def next_action(self, observation: Any, mode: str | None = None) -> np.ndarray:
        """The next action [a] in one environment, of the chunk that is being played; a new one is
        decided when it is used up.

        Raises:
            ValueError, FloatingPointError: as `act`, or many observations were given.
        """
        batch, many = self.interface.batch(observation)
        if many:
            raise ValueError(
                "next_action plays in one environment, and was given many observations: use act."
            )

        def decide(envs: list[int]) -> np.ndarray:
            return self._decide(batch, None, mode).action[envs]

        return self.interface.own_actions(self._chunks.next(decide)[0])

    def _known(self, mode: str | None) -> Mode:
        for known in get_args(Mode):
            if mode == known:
                return known
        if mode is not None:
            raise ValueError(f"unknown mode {mode!r}. {closest(mode, get_args(Mode))}")
        return self.mode

    def _decide(self, batch: dict[str, np.ndarray], seed: int | None, mode: str | None) -> Decision:
        """A decision in [-1, 1] about observations [b, ...] in the environment's units."""
        mode = self._known(mode)
        if mode in ("base", "unedited", "sample") and not self.algorithm.has_base:
            raise ValueError(f"mode {mode!r} needs a base policy, and this one has none.")
        if seed is None:
            seed, self._next_seed = self._next_seed, (self._next_seed + 1) % SEEDS
        key = run_key(0, EVALUATE, _checked(seed))
        observation = batch if self.normalizer is None else self.normalizer(batch)
        decision = self.algorithm.act(self.parameters, observation, key, mode=mode)
        action, info = jax.device_get((decision.action, decision.info))
        return Decision(playable(action, self.interface.spec.chunk_length), info)


def _checked(seed: int) -> int:
    if not 0 <= seed < SEEDS:
        raise ValueError(f"a seed must be at least 0 and below 2**32, got {seed}.")
    return int(seed)


def load_policy(
    run: Path | str,
    *,
    trust: Trust = False,
    checkpoint_name: str | None = None,
    base: Any = None,
) -> Policy:
    """The policy of a bundle, or of a finished or interrupted run, as it was deployed at the newest
    checkpoint.

    Reads nothing but the folder. Of a run: config.json, policy.json, statistics.json where
    observations are normalised, and of the newest intact checkpoint its manifest and
    learner.safetensors. A bundle is compared with its manifest first, every file of it. It runs on
    any device, whatever the run was trained on.

    Args:
        run: the run directory or the bundle, or a copy of it.
        trust: whether an algorithm or a base policy `module:attribute` that it names may be loaded,
            which runs its code: all of them, or these names.
        checkpoint_name: of a run, another checkpoint than the newest.
        base: the policy from outside that `train` was given, if it was given one.

    Raises:
        ValueError: neither a run directory nor a bundle, a file of it is missing, damaged or not
            what the checkpoint or the manifest remembers (names it), code that is not trusted, or
            there is no checkpoint.
    """
    run_dir = Path(run)
    if bundle.is_bundle(run_dir):
        return _from_bundle(run_dir, trust)
    seeds = seed_runs(run_dir)
    if seeds and not (run_dir / CONFIG).is_file():
        raise ValueError(
            f"{run_dir} is a folder of {len(seeds)} runs: load one of them, such as "
            f"{seeds[min(seeds)]}."
        )
    config = read_config(run_dir)
    check_trust(run_dir, config, trust, task=False)
    found = found_checkpoint(run_dir, checkpoint_name)
    if found is None:
        raise ValueError(
            f"{run_dir} has no checkpoint yet. Let it train first: exporl train --resume {run_dir}"
            f"; of a copy, copy the folder {CHECKPOINTS} too."
        )
    options = ActingOptions.of(config, str(run_dir / CONFIG))
    check_unchanged(options, found)
    check_objects(run_dir, found.record, found.name)
    if checkpoint_name is None:
        warn_of_newer(run_dir, config, found)
    return _from_run(run_dir, options, found, trust, base)


def _from_run(
    run_dir: Path, options: ActingOptions, found: checkpoint.Found, trust: Trust, base: Any
) -> Policy:
    """The policy of a checkpoint whose options are those of the run."""
    has_interface = (run_dir / POLICY).is_file()
    interface = read_interface(run_dir) if has_interface else _derived(run_dir, trust)
    algorithm, normalizer = options.algorithm(interface.spec), normalizer_of(run_dir, interface)
    outside = base_of(options.base, interface.spec, base, interface.units)
    mine, others = split_arrays(found.parts[LEARNER])
    if outside is not None:
        outside.load(others)
        algorithm = around(algorithm, outside, Seen(state_spec(interface.spec), normalizer))
    mode: Mode = "base" if found.record.get("deployed") == "base" else "evaluate"
    return Policy(
        algorithm,
        _acting_parameters(algorithm, mine),
        interface,
        normalizer if outside is None else None,
        mode=mode,
        checkpoint_name=found.name,
        candidates=ranked(options.algo, mode),
        outside=outside,
    )


def _from_bundle(folder: Path, trust: Trust) -> Policy:
    """The policy of a bundle, once all of its files are what its manifest says."""
    bundle.check_bundle(folder)
    config = read_object(folder / CONFIG)
    check_trust(folder, config, trust, task=False)
    options = ActingOptions.of(config, str(folder / CONFIG))
    interface = read_interface(folder)
    algorithm = options.algorithm(interface.spec)

    def acting(key: KeyArray) -> Params:
        """What acting needs, as it is before the first update."""
        return algorithm.acting(algorithm.init(key))

    wanted = jax.eval_shape(acting, run_key(0, INIT))
    mode: Mode = "base" if config.get("mode") == "base" else "evaluate"
    return Policy(
        algorithm,
        from_arrays(wanted, bundle.load_parameters(folder)),
        interface,
        normalizer_of(folder, interface),
        mode=mode,
        checkpoint_name=str(config.get("checkpoint", "")),
        candidates=ranked(options.algo, mode),
    )


def _acting_parameters(algorithm: Algorithm, arrays: Mapping[str, np.ndarray]) -> Params:
    """What acting needs of a saved learner: only that reaches the device."""
    state = jax.eval_shape(algorithm.init, run_key(0, INIT))
    return algorithm.acting(from_arrays(state, arrays))


def _derived(run_dir: Path, trust: Trust) -> Interface:
    """The interface of a run that was made before there was a policy.json: from its task."""
    from exporl.acting.of_task import interface_of_run

    return interface_of_run(run_dir, trust)
