"""Checks of the options that algorithms have in common."""

import dataclasses
import typing
from typing import Any


def check_options(config: Any) -> None:
    """Checks the options that algorithms have in common.

    Raises:
        ValueError: naming the option, its value and the values that are possible.
    """
    options: dict[str, Any] = dataclasses.asdict(config)
    hints = typing.get_type_hints(type(config))
    for name, value in options.items():
        _check_choice(name, value, hints[name])
        if name.endswith("learning_rate") and not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}.")
        if name in ("tau", "base_tau") and not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value}.")
        if name == "edit_dropout" and not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}.")
        if name == "initial_temperature" and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")
        if name == "hidden" and (not value or min(value) < 1):
            raise ValueError(f"hidden must list at least one positive layer size, got {value}.")
    if "num_qs" in options and not 1 <= options["num_min_qs"] <= options["num_qs"]:
        raise ValueError(f"num_min_qs must be between 1 and num_qs={options['num_qs']}, got {options['num_min_qs']}.")
    if "num_base_samples" in options:
        num, edits = options["num_base_samples"], options["num_edit_samples"]
        if not 0 <= edits <= num or num < 1:
            raise ValueError(
                f"num_edit_samples must be between 0 and num_base_samples={num} (at least 1), got {edits}: "
                "every edit starts from one base sample."
            )
        if not 0 < options["edit_scale"] <= 2:
            raise ValueError(
                f"edit_scale must be in (0, 2], got {options['edit_scale']}; for no edits set num_edit_samples=0."
            )
        backup, filtered = options["backup"], options["backup"] == "filtered"
        if options["filter_acting"] and not filtered:
            raise ValueError(
                f"filter_acting needs backup='filtered', got backup={backup!r}: there is no filter to act with."
            )
        if filtered and options["hoist_sampling"] is True:
            raise ValueError(
                "hoist_sampling=True needs candidates that stand still: the filter learns at every minibatch."
            )
        if backup == "cached" and options["hoist_sampling"] is True:
            raise ValueError("hoist_sampling=True has nothing to hoist with backup='cached': nothing is sampled.")
        if options["cache_refresh"] < 1:
            raise ValueError(f"cache_refresh must be at least 1, got {options['cache_refresh']}.")
        if options["backup_entropy"] and options["selection"] != "soft":
            raise ValueError("backup_entropy needs selection='soft': the best candidate has log probability 0.")
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        for name, needed, value in (("cache_refresh", "backup", "cached"), ("softness", "selection", "soft")):
            if options[name] != defaults[name] and options[needed] != value:
                raise ValueError(
                    f"{name}={options[name]} has no effect with {needed}={options[needed]!r}: it needs {needed}={value!r}."
                )


def _check_choice(name: str, value: Any, hint: Any) -> None:
    parts = (hint, *typing.get_args(hint))
    choices = [c for part in parts if typing.get_origin(part) is typing.Literal for c in typing.get_args(part)]
    if choices and isinstance(value, str) and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")
