"""The trials of a search: Optuna chooses and judges them, its journal keeps them, one JSON line per
event. Where the process is killed, a trial that was running goes on under its number."""

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporl.bench.search_file import Choice, Entry, Range, Search
from exporl.files.atomic import cut_back, read_lines, refuse_link

JOURNAL = "trials.jsonl"
"""File in a suite's folder."""
STUDY, SETTINGS, REASON = "search", "settings", "reason"
RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"


class Trial(NamedTuple):
    """One configuration and what became of it."""

    number: int
    """From 0."""
    state: str
    options: Mapping[str, Any]
    """Its values of the searched options."""
    value: float | None
    """What it is worth; None where it is not complete."""
    reported: Mapping[int, float]
    """Evaluation, from 0 -> its value by then."""
    reason: str | None
    """Why it failed."""


class Trials:
    """The trials of one search, for the one process that holds the suite's lock."""

    def __init__(self, folder: Path, search: Search, settings: Mapping[str, Any]):
        """Opens the journal, or begins it.

        Args:
            folder: of the suite.
            search: what is searched.
            settings: plain values that must be those that the search was begun with.

        Raises:
            ModuleNotFoundError: Optuna is not installed; says how to install it.
            ValueError: the journal is damaged or a link, or the search was begun with other
                settings; says which.
        """
        self._optuna = load_optuna()
        self._search, path = search, folder / JOURNAL
        refuse_link(path)
        _mend(path)
        self._storage = _storage(self._optuna, path)
        self._study = self._optuna.create_study(
            storage=self._storage,
            study_name=STUDY,
            direction="maximize",
            load_if_exists=True,
            sampler=self._sampler(0),
            pruner=self._pruner(),
        )
        self._live: dict[int, Any] = {}
        _check_settings(self._study, json.loads(json.dumps(settings)), path)

    def listed(self) -> list[Trial]:
        """All trials, by their numbers."""
        return _listed(self._study, self._search.space)

    def begin(self) -> Trial:
        """The next trial, chosen by what is known of the others."""
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._sampler(number)
        return self._filled(self._study.ask())

    def go_on(self, number: int) -> Trial:
        """A trial that was running when the process before this one ended."""
        self._study.sampler = self._sampler(number)
        study = self._storage.get_study_id_from_name(STUDY)
        found = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return self._filled(self._optuna.trial.Trial(self._study, found))

    def report(self, number: int, evaluation: int, value: float) -> bool:
        """Notes what a trial is worth after an evaluation, if that was not noted yet; whether it
        should end here."""
        trial = self._live[number]
        if evaluation not in self.listed()[number].reported:
            trial.report(value, evaluation)
        return bool(trial.should_prune())

    def complete(self, number: int, value: float) -> None:
        """Notes what a trial is worth."""
        self._study.tell(number, value)

    def prune(self, number: int) -> None:
        """Notes that a trial was ended early."""
        self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Notes that a trial could not be made; it does not count."""
        self._live[number].set_user_attr(REASON, reason)
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _sampler(self, number: int) -> Any:
        """Draws of a trial follow from the seed and its number: a search that goes on does not
        repeat those of its beginning."""
        entropy = np.random.SeedSequence([self._search.seed, number])
        seed, samplers = int(entropy.generate_state(1)[0]), self._optuna.samplers
        if self._search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed, n_startup_trials=self._search.startup)

    def _pruner(self) -> Any:
        pruners = self._optuna.pruners
        if self._search.pruning == "none":
            return pruners.NopPruner()
        return pruners.MedianPruner(
            n_startup_trials=self._search.startup, n_warmup_steps=self._search.warmup
        )

    def _filled(self, trial: Any) -> Trial:
        """A trial with a value for every option; those that it has already stay."""
        for name, entry in self._search.space.items():
            _suggest(trial, name, entry)
        self._live[trial.number] = trial
        return self.listed()[trial.number]


def read_trials(folder: Path, search: Search) -> list[Trial]:
    """The trials that a suite's folder has by now; a search may go on meanwhile.

    Raises:
        ModuleNotFoundError: Optuna is not installed; says how to install it.
        ValueError: the journal is damaged; names the line.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return []
    read_lines(path)
    optuna = load_optuna()
    storage = _storage(optuna, path)
    if not storage.get_all_studies():
        return []
    return _listed(optuna.load_study(study_name=STUDY, storage=storage), search.space)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the highest value, the earliest of several; None where there is
    none."""
    complete = [trial for trial in trials if trial.value is not None]
    return max(complete, key=_value, default=None)


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


class _Alone:
    """A lock that is not needed: the suite's own lock keeps every other process away. Optuna's
    would be left behind by a process that is killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def load_optuna() -> Any:
    """Optuna, which is quiet from now on.

    Raises:
        ModuleNotFoundError: it is not installed; says how to install it.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "searching options needs Optuna: pip install 'exporl[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(optuna: Any, path: Path) -> Any:
    journal = optuna.storages.journal
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=_Alone()))


def _mend(path: Path) -> None:
    """Cuts off a last line that a killed process did not finish: the next one would be glued to it.

    Raises:
        ValueError: another line is damaged; names it.
    """
    if path.is_file():
        cut_back(path, path.read_bytes().rfind(b"\n") + 1)
        read_lines(path)


def _check_settings(study: Any, settings: Mapping[str, Any], path: Path) -> None:
    """Whether a search goes on as it was begun.

    Raises:
        ValueError: a setting differs; names it with both values.
    """
    before = study.user_attrs.get(SETTINGS)
    if before is None:
        study.set_user_attr(SETTINGS, settings)
        return
    for name in sorted({*before, *settings}):
        then, now = before.get(name), settings.get(name)
        if then != now:
            raise ValueError(
                f"the search in {path} was begun with {name} = {then!r}, and {now!r} is asked for "
                "now. Only its trials may become more: give the suite another folder."
            )


def _suggest(trial: Any, name: str, entry: Entry) -> None:
    """Draws a value of an option, where the trial has none yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's advice is for those who call it
        if isinstance(entry, Choice):
            trial.suggest_categorical(name, [json.dumps(value) for value in entry.values])
        elif entry.whole:
            trial.suggest_int(name, int(entry.low), int(entry.high), log=entry.log)
        else:
            trial.suggest_float(name, entry.low, entry.high, log=entry.log)


def _listed(study: Any, space: Mapping[str, Entry]) -> list[Trial]:
    return [
        Trial(
            found.number,
            _STATES.get(found.state.name, RUNNING),
            {name: _decoded(space.get(name), value) for name, value in found.params.items()},
            found.value if found.state.name == "COMPLETE" else None,
            dict(found.intermediate_values),
            found.user_attrs.get(REASON),
        )
        for found in study.get_trials(deepcopy=False)
    ]


_STATES = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAILED}


def _decoded(entry: Entry | None, value: Any) -> Any:
    """A value of an option from what the journal has: categories are kept as JSON."""
    if isinstance(entry, Range) or not isinstance(value, str):
        return value
    found = json.loads(value)
    return tuple(found) if isinstance(found, list) else found
