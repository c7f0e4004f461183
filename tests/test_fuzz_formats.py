"""Damaged files of every format end in a valid read or an error of ours: never another exception,
never a hang.

Every format's file is mutated in a process of its own, so that a crash inside a library for HDF5 or
Parquet would show.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import faults
from exporl.data.formats import FORMATS, read_records
from helpers.hostile import BUILDERS, KINDS, builder, mutate

MUTATIONS = 60
LIMIT_S = 10


def attack(name: str, folder: Path) -> None:
    """Runs all mutations of one format; prints which one runs and what went wrong."""
    import signal

    file_name, build = builder(name)
    path = folder / file_name
    build(path)
    for record in read_records(path, name):
        assert not list(faults(record.read())), "the undamaged file has faults"
    files = sorted(f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())
    refused = 0
    for index in range(MUTATIONS):
        rng, kind = np.random.default_rng((7, index)), KINDS[index % len(KINDS)]
        victim = files[index // len(KINDS) % len(files)]
        content = victim.read_bytes()
        victim.write_bytes(mutate(content, kind, rng))
        print("try", index, kind, victim.name, flush=True)
        signal.alarm(LIMIT_S)  # ends the process: a hang shows as its last line
        try:
            for record in read_records(path, name):
                try:
                    list(faults(record.read()))
                except ValueError as error:
                    assert str(error), "an error without a message"
                    refused += 1
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            if path.name not in str(error):
                print("BAD no file named:", type(error).__name__, error, flush=True)
        except Exception as error:
            print("BAD", type(error).__name__, error, flush=True)
        finally:
            signal.alarm(0)
            victim.write_bytes(content)
    print("refused", refused, flush=True)


def test_every_format_is_attacked():
    assert all(builder(name) for name in FORMATS) and set(BUILDERS) <= set(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damage_ends_in_a_clean_error_or_a_valid_read(name, tmp_path):
    if FORMATS[name].module is not None:
        pytest.importorskip(FORMATS[name].module)
    result = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", __file__, name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = result.stdout.splitlines()
    bad = [f"{lines[i - 1]}: {line}" for i, line in enumerate(lines) if line.startswith("BAD")]
    assert not bad, "\n".join(bad)
    assert lines and lines[-1].startswith("refused"), (
        f"stopped at {lines[-1:]}: {result.stderr[-600:]}"
    )
    assert sum(line.startswith("try") for line in lines) == MUTATIONS
    assert int(lines[-1].split()[1]) > MUTATIONS // 6, "the damage hardly ever matters"


if __name__ == "__main__":
    attack(sys.argv[1], Path(sys.argv[2]))
