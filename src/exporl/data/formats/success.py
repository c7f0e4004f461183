"""What counts as success where a file does not record it."""

import numpy as np

ADVICE = (
    "Record success: `successes` per step (infos/success in Minari, next.success in LeRobot); or "
    "give the task's own rule: custom_task(..., success=function of (reward, terminated, info))."
)


def from_rewards(rewards: np.ndarray, several: bool = False) -> tuple[np.ndarray, str]:
    """(successes [t] bool, question) of an episode of which only rewards are recorded.

    A reward of 1 in a single step and 0 elsewhere is a success; all zeros are none. Of any other
    rewards the sign says nothing (a distance, a bonus for being alive, -1 per step): then nothing
    succeeds, and the question says what is not known.

    Args:
        rewards: [t].
        several: whether the format promises that a reward of 1 is a success in any number of steps.
    """
    positive = rewards > 0
    if np.isin(rewards, (0, 1)).all() and (several or positive.sum() <= 1):
        return positive, ""
    least, most = float(rewards.min()), float(rewards.max())
    seen = f"they are above 0 in {int(positive.sum())} of {len(rewards)} steps"
    return np.zeros(len(rewards), bool), (
        f"success is not recorded, and the rewards do not tell it: {seen}, from {least:g} to "
        f"{most:g}. {ADVICE}"
    )
