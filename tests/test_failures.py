"""The benchmark of environments that fail: every way in training and in evaluation, and none of
them lost anything."""

import json
from pathlib import Path

import pytest

from helpers.faults import FAULTS, GIVEN, RAISED

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "failures.json"


@pytest.mark.skipif(not RESULT.is_file(), reason="no result: run benchmarks/failures.py")
def test_every_way_in_training_and_in_evaluation_ends_with_its_reason_and_goes_on():
    result = json.loads(RESULT.read_text())
    assert set(result["ways"]) == {*FAULTS, "hangs", "slow"}
    assert result["clean"] == result["ends"] == 2 * len(result["ways"]) >= 52
    assert result["faults"] == []


def test_the_ways_are_of_every_kind():
    """Raising of each kind, leaving, NaN, infinity, huge, other shapes, other types, nothing."""
    assert {"OSError", "ValueError", "KeyError", "RuntimeError", "MemoryError"} <= RAISED.keys()
    assert {"SystemExit", "BaseException", "StopIteration", "TimeoutError"} <= RAISED.keys()
    for kind in ("NaN", "inf", "1e30", "None", "text"):
        assert {f"{kind} observed", f"{kind} paid"} <= GIVEN.keys()
    assert {"wrong shape", "two rewards", "None", "four values", "None info"} <= GIVEN.keys()
