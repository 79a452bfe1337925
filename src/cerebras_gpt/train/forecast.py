"""The forecast beside a run: the band that its plan expects at the end, and one warning when the run leaves it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cerebras_gpt.plan.plan import Prediction
from cerebras_gpt.record import Row

WORSE = (
    "likely causes: a learning rate or batch that does not fit this size, other or harder text than the law's, "
    "text read many times, or an unlucky seed"
)
BETTER = "likely causes: held-out text that is also in the training text, easier text than the law's, or a lucky seed"
RISING = "likely causes: a learning rate too high for this size, or text read so often that it is learned by heart"


@dataclass(frozen=True)
class Watch:
    """Compares held-out losses with a prediction of the last one; it warns once, also over interruptions.

    The prediction is of the end, after the learning rate has decayed, and says nothing of where a run should stand
    before: a loss above the band half-way is no sign. On the way it only warns of a loss that rises from the best one
    by more than the whole width of the band: both are measured on the same text, so that is no accident of sampling.
    """

    prediction: Prediction | None

    @property
    def words(self) -> str:
        """What the progress line says of the forecast; nothing without one."""
        band = self.prediction
        return "" if band is None else f", forecast {band.low:.4f} to {band.high:.4f} at the end"

    def doubt(self, bits_per_byte: float, at_end: bool, before: Sequence[Row]) -> str:
        """The warning of this evaluation, after the rows of those before; or nothing."""
        if self.prediction is None or any(row["kind"] == "doubt" for row in before):
            return ""
        losses = [row["bits_per_byte"] for row in before if row["kind"] == "held_out"]
        best = min((loss for loss in losses if isinstance(loss, float)), default=math.inf)
        return self._doubt(self.prediction, bits_per_byte, at_end, best)

    def _doubt(self, band: Prediction, loss: float, at_end: bool, best: float) -> str:
        said = f"the forecast of {band.low:.4f} to {band.high:.4f}"
        if at_end and loss > band.high:
            return f"{loss:.4f} bits per byte is above {said}; {WORSE}"
        if at_end and loss < band.low:
            return f"{loss:.4f} bits per byte is below {said}; {BETTER}"
        if not at_end and loss > best + (band.high - band.low):
            return f"held-out loss rose from {best:.4f} to {loss:.4f}, so {said} is in doubt; {RISING}"
        return ""
