"""A report that is written again while its runs go on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from exporl.files.run_files import CONFIG, EVAL, METRICS, SUMMARY
from exporl.report.reading import is_finished
from exporl.report.run_data import NothingToReport

WATCHED = (CONFIG, EVAL, METRICS, SUMMARY)
"""Files whose change makes another page."""
Signs = tuple[tuple[str, int, int], ...]


def signs_of(run_dirs: Sequence[Path]) -> Signs:
    """(file, size, time of change) of everything that a page about these runs follows from."""
    found = []
    for run_dir in run_dirs:
        for name in WATCHED:
            try:
                about = (run_dir / name).stat()
            except OSError:  # not there yet
                continue
            found.append((str(run_dir / name), about.st_size, about.st_mtime_ns))
    return tuple(found)


def watch(
    find_runs: Callable[[], Sequence[Path]],
    write: Callable[[Sequence[Path], bool], object],
    wait: Callable[[], object],
    say: Callable[[str], object],
) -> None:
    """Writes a page whenever the files of its runs have changed, until all runs are finished.

    Args:
        find_runs: the runs, which may become more.
        write: makes the page about runs; told whether it is the last one.
        wait: returns when it is time to look again.
        say: told, once, what is waited for.

    Raises:
        ValueError: a folder that is no run, or none of them has an evaluation in the end.
    """
    before: Signs | None = None
    told = False
    while True:
        runs = find_runs()
        last = all(map(is_finished, runs))
        signs = signs_of(runs)
        if signs != before or last:
            try:
                write(runs, last)
            except NothingToReport as error:
                if last:
                    raise
                if not told:
                    say(f"waiting: {error}")
                told = True
            before = signs
        if last:
            return
        wait()
