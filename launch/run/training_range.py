"""In what a configured probe is unlike those that the network was trained for.

Compared is what is known for sure before the scan: the photons of a frame, and the radii that a zone
plate's probe is computed from. Those of any other probe would have to be guessed.
"""

from collections.abc import Iterator

import numpy as np

from launch.config.probe import Known, model_card
from operators.arrays import abs2


def outside_of_training(known: Known) -> list[str]:
    """Returns one sentence for each range of the model card that the probe lies outside of.

    Raises
    ------
    ValueError
        If the probe cannot be read.
    """
    return list(_ranges_left(known))


def _ranges_left(known: Known) -> Iterator[str]:
    card, section = model_card(known.config), known.config.probe
    low, high = card.get("photons_per_frame", (0, np.inf))
    photons = _photons(known)
    if photons is not None and not low <= photons <= high:
        # Shipped weights: at a tenth of the least photons 68 % bands hold 31 %, at ten times the most 82 %.
        # Told twice or half the photons that there are, they are worse than a constant.
        consequence = (
            "larger errors than the error bars say" if photons < low else "error bars that may be too long"
        )
        yield (
            f"the network was trained for {low:.3g} to {high:.3g} photons a frame, the probe has "
            f"{photons:.3g}: expect {consequence}, and useless patches if it is not the power of the beam; "
            "correct `probe.photons`, or train for as many (`photons_per_frame` of a recipe)"
        )
    # A guess is corrected during the scan, and other optics have no such radii.
    is_known = section.source == "zone_plate" and not section.is_guess
    optics = card.get("recipe", {}).get("probe", {}).get("optics", ["zone_plate"])
    for name, (low, high) in card.get("probe", {}).items():
        if is_known and "zone_plate" in optics and not low <= (radius_px := getattr(section, name)) <= high:
            yield (
                f"the network was trained for a {name} of {low:.3g} to {high:.3g}, the probe has "
                f"{radius_px:.3g}: expect larger errors than the error bars say; correct `probe.{name}`, or "
                "train for your probe (section `probe` of a recipe)"
            )


def _photons(known: Known) -> float | None:
    """Return the photons of a frame without a sample, None if they are found during the scan."""
    if known.config.probe.photons is not None:
        return known.config.probe.photons
    probe = None if known.config.finds_probe else known.probe
    return None if probe is None else float(abs2(probe).sum(dtype=np.float64))
