"""EXPO whose TD target values a sample of the base policy.

The paper's ablation in which the on-the-fly policy acts only.
"""

from exporl.algos.expo import Expo, ExpoState
from exporl.ops.selection import Candidates
from exporl.types import Batch, KeyArray


class BaseTargetExpo(Expo):
    """EXPO but for the TD target: y = r + gamma * min Q'(s', a'), a' ~ pi_base(. | s')."""

    def target_candidates(
        self,
        state: ExpoState,
        batch: Batch,
        key: KeyArray,
    ) -> Candidates:
        """The last base sample of EXPO's candidates: there is nothing to choose.

        `min_noise_scale` leaves the noise of the last one whole.
        """
        candidates = super().target_candidates(state, batch, key)
        last = candidates.base[:, -1:]
        no_edits = candidates.edited[:, :0]
        return candidates._replace(base=last, edited=no_edits)
