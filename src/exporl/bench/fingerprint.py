"""What made a run: its configuration, the versions of packages, the source of the library and of
code of the user's own. A suite compares them, so that runs of different code or options are never
mixed unnoticed."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporl.bench.grid import PlannedRun
from exporl.bench.prints import CODE, COMMIT, print_path, read_print
from exporl.files.atomic import write_text
from exporl.outside import outside_names
from exporl.run.config import RunConfig, flatten, to_json
from exporl.run.directory import versions

LOGGING = "log."
"""Options that change nothing in a table."""
GROWS = "train.online_steps"
"""What a run may be given more of."""


class Mismatch(NamedTuple):
    """How a run differs from what would be made now."""

    name: str
    """The run."""
    what: str
    """A sentence."""
    kind: str | None
    """What has to be allowed to go on; None where nothing helps."""


def library_code() -> dict[str, Any]:
    """The library's code: versions of packages, and SHA-256 of its source as it lies on the disk
    now."""
    root = Path(__file__).parents[1]
    source = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.py"))}
    return {"versions": versions(), "source": _digest(source)}


def code_of(config: RunConfig[Any], library: Mapping[str, Any]) -> dict[str, Any]:
    """What code a run is made with: the library's, and SHA-256 of the modules that its
    configuration names, as they lie on the disk now."""
    modules = {name.partition(":")[0] for name in outside_names(to_json(config)).values()}
    digests = {
        module: _digest({module: Path(file)})
        for module in sorted(modules)
        if (file := getattr(sys.modules.get(module), "__file__", None))
    }
    return {**library, "outside": digests}


def _digest(files: Mapping[str, Path]) -> str:
    total = hashlib.sha256()
    for name, path in files.items():
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def fingerprint(run: PlannedRun, code: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes a run, as JSON has it."""
    values = json.loads(json.dumps(flatten(run.config)))
    return {"asked": run.asked.plain(), "configuration": values, **{k: code[k] for k in CODE}}


def mismatches(suite_folder: Path, run: PlannedRun, code: Mapping[str, Any]) -> list[Mismatch]:
    """How a run that has begun differs from what would be made now."""
    if not run.begun:
        return []
    name, then = run.asked.name, read_print(suite_folder, run.run_dir)
    if then is None:
        what = f"{run.run_dir} was not made by this suite: nothing says with which code."
        return [Mismatch(name, what, "version")]
    now = fingerprint(run, code)
    found = [
        Mismatch(name, f"{option} was {before!r}, now {after!r}.", _kind(option, before, after))
        for option, before, after in _changed(then["configuration"], now["configuration"])
        if not option.startswith(LOGGING)
    ]
    return found + [Mismatch(name, sentence, "version") for sentence in _other_code(then, now)]


def _kind(option: str, before: Any, after: Any) -> str | None:
    """What allows an option to differ: a run can be given more steps, and nothing else. Evaluations
    at other steps or of other episodes could not be compared."""
    return "configuration" if option == GROWS and after > before else None


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = sorted(set(before) | set(after))
    pairs = ((name, before.get(name), after.get(name)) for name in names)
    return [(name, old, new) for name, old, new in pairs if old != new]


def _other_code(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the code differs, a sentence each."""
    packages = [
        f"{package} was {before}, now {after}."
        for package, before, after in _changed(then["versions"], now["versions"])
        if package != COMMIT
    ]
    modules = [
        f"the module {module} was changed."
        for module, _, _ in _changed(then["outside"], now["outside"])
    ]
    if then["source"] == now["source"]:
        return packages + modules
    commits = [each["versions"].get(COMMIT, "no commit") for each in (then, now)]
    return [
        f"the source of exporl was {then['source']} ({commits[0]}), now {now['source']} "
        f"({commits[1]}).",
        *packages,
        *modules,
    ]


def check_unmixed(found: Sequence[Mismatch], allowed: Sequence[str]) -> None:
    """Whether a suite may go on with the runs there are.

    Raises:
        ValueError: a run differs in what was not allowed; names the runs with their differences,
            and what to do.
    """
    refused = [each for each in found if each.kind not in allowed]
    if not refused:
        return
    shown = list(dict.fromkeys(f"{each.name}: {each.what}" for each in refused))
    more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    kinds = list(dict.fromkeys(each.kind for each in refused))
    advice = [_ADVICE[kind] for kind in kinds]
    head = "runs of the suite were made with something else than they would be made with now:"
    raise ValueError("\n".join((head, *shown[:SHOWN], *more, *advice)))


SHOWN = 6
"""Differences that are listed."""
_ADVICE: Mapping[str | None, str] = {
    "version": (
        "To go on and mix them all the same, add --allow version; tables will say so. To do "
        "without mixing, give the suite another folder."
    ),
    "configuration": (
        "Runs can be given more environment steps: add --allow configuration, and they go on to "
        "what the file asks for."
    ),
    None: (
        "Nothing can make one run of two configurations: give the algorithm another name in the "
        "suite, give the suite another folder, or move these runs away."
    ),
}


def keep_print(suite_folder: Path, run: PlannedRun, code: Mapping[str, Any]) -> None:
    """Writes what makes a run from now on; what made it before is kept with it."""
    path = print_path(suite_folder, run.run_dir)
    then = read_print(suite_folder, run.run_dir) if run.begun else None
    now, earlier = fingerprint(run, code), [] if then is None else list(then["earlier"])
    if then is not None and _other_code(then, now):
        earlier.append({name: then[name] for name in CODE})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**now, "earlier": earlier}, indent=1))
