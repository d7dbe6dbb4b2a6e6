"""Whether the error bars of a live image can steer a scan: its calibration dial, read by the policy.

The pipeline turns it: wherever a place has been refined, the phase that the network's mosaic had there is
compared with the sigma it claimed.
"""

from operators.mosaic.error_bars import LEAST_68
from stream.live.image import LiveImage


def calibration(image: LiveImage | None) -> float | None:
    """Return the share of the phase errors within one claimed sigma, None where nothing is known of it."""
    return None if image is None else image.coverage68


def is_trusted(share: float | None) -> bool:
    """Return whether error bars with that share within one sigma can steer; unknown ones are believed.

    No upper bound: refined ground cannot show that bars are too long (`operators.mosaic.error_bars`).
    """
    return share is None or share >= LEAST_68
