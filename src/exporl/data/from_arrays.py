"""Episodes from arrays in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporl.data.episodes import Episode

_KNOWN = {
    "actions",
    "rewards",
    "terminals",
    "episode_ends",
    "timeouts",
    "observations",
    "next_observations",
    "successes",
}


def from_arrays(arrays: Mapping[str, Any]) -> list[Episode]:
    """Episodes from a dictionary of arrays over all N steps of all episodes, one after the other.

    Args:
        arrays: "actions" [N, a], "rewards" [N], "terminals" [N] (true ends), "episode_ends" (number
            of steps up to each episode's end) or "timeouts" [N] (ends that are not terminal);
            "observations", an array or a dictionary of
            arrays: [N + episodes, ...] with the one after each last step, or [N, ...] beside
                "next_observations";
            "successes" [N], by default positive rewards.

    Raises:
        ValueError: an array is missing or the lengths disagree; names it.
    """
    _check_names(arrays)
    actions = np.asarray(arrays["actions"], np.float32)
    steps = len(actions)
    flat = _per_step(arrays, steps)
    ends = _episode_ends(arrays, flat, steps)
    first = _entries(arrays["observations"])
    after = _entries(arrays["next_observations"]) if "next_observations" in arrays else None
    _check_rows(first, after, steps, len(ends))
    successes = flat["successes"] > 0 if "successes" in flat else flat["rewards"] > 0
    episodes, start = [], 0
    for index, end in enumerate(ends):
        if after is None:
            observations = {name: v[start + index : end + index + 1] for name, v in first.items()}
        else:
            observations = {
                name: np.concatenate([values[start:end], after[name][end - 1 : end]])
                for name, values in first.items()
            }
        episodes.append(
            Episode(
                observations,
                actions[start:end],
                flat["rewards"][start:end].astype(np.float32),
                successes[start:end],
                terminated=bool(flat["terminals"][end - 1] > 0),
            )
        )
        start = end
    return episodes


def _check_names(arrays: Mapping[str, Any]) -> None:
    unknown = sorted(set(arrays) - _KNOWN)
    if unknown:
        raise ValueError(f"unknown array {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}.")
    for name in ("actions", "rewards", "terminals", "observations"):
        if name not in arrays:
            raise ValueError(f"{name!r} is missing; there are {', '.join(sorted(arrays))}.")


def _per_step(arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """The arrays [N] of one number per step."""
    names = [name for name in ("rewards", "terminals", "timeouts", "successes") if name in arrays]
    flat = {name: np.asarray(arrays[name]).reshape(-1) for name in names}
    for name, values in flat.items():
        if len(values) != steps:
            raise ValueError(
                f"{name!r} has {len(values)} entries, actions have {steps}. They must agree."
            )
    return flat


def _episode_ends(
    arrays: Mapping[str, Any], flat: Mapping[str, np.ndarray], steps: int
) -> list[int]:
    """Steps up to the end of each episode."""
    if "episode_ends" in arrays:
        ends = np.asarray(arrays["episode_ends"]).reshape(-1)
    elif "timeouts" in flat:
        ends = np.flatnonzero((flat["terminals"] > 0) | (flat["timeouts"] > 0)) + 1
    else:
        raise ValueError(
            "give 'episode_ends' or 'timeouts': where episodes end that are not terminal."
        )
    if not len(ends) or ends[-1] != steps or (np.diff(ends, prepend=0) <= 0).any():
        raise ValueError(
            f"the episodes' ends must rise from above 0 to the number of steps, {steps}; got "
            f"{ends[-3:]}."
        )
    return ends.astype(int).tolist()


def _check_rows(
    first: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray] | None, steps: int, num: int
) -> None:
    """Whether observations, and next observations where there are any, have the rows they need."""
    rows = steps if after is not None else steps + num
    for which, entries in (("observations", first), ("next_observations", after or {})):
        for name, values in entries.items():
            if len(values) != rows:
                raise ValueError(
                    f"{which} {name!r} has {len(values)} rows for {steps} steps in {num} episodes. "
                    "Give [N + episodes] rows (with the observation after each last step), or [N] "
                    "and 'next_observations'."
                )
    if after is not None and after.keys() != first.keys():
        raise ValueError(
            f"observations have {sorted(first)}, next_observations {sorted(after)}. They must "
            "agree."
        )


def _entries(observations: Any) -> dict[str, np.ndarray]:
    entries = observations if isinstance(observations, Mapping) else {"state": observations}
    arrays = {name: np.asarray(values) for name, values in entries.items()}
    return {
        name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in arrays.items()
    }
