"""What the agreement of two halves of the frames says about resolution, as figures and as words."""

from typing import Any

from operators.metrics.errors import FRC

HALF, ONE_SEVENTH = 0.5, 1 / 7  # customary fixed thresholds of ring correlations
NYQUIST = 0.5  # cycles/pixel


def resolution_figures(halves: FRC, pixel_m: float) -> dict[str, Any]:
    """Returns where the halves cease to agree, by name.

    Parameters
    ----------
    halves : FRC
    pixel_m : float
        Of the object.

    Returns
    -------
    dict
        `frc_half_bit_cycles_per_px`, `frc_half_cycles_per_px`, `frc_one_seventh_cycles_per_px`: crossings of
        the half-bit curve, of 0.5 and of 1/7. `resolution_m`: half a period at the first of them; the pixel
        where the halves agree everywhere, None where they agree nowhere.
    """
    half_bit = halves.crossing(halves.half_bit)
    return {
        "frc_half_bit_cycles_per_px": half_bit,
        "frc_half_cycles_per_px": halves.crossing(HALF),
        "frc_one_seventh_cycles_per_px": halves.crossing(ONE_SEVENTH),
        "resolution_m": pixel_m / (2 * half_bit) if half_bit > 0 else None,
    }


def resolution_text(figures: dict[str, Any]) -> str:
    """Returns these figures in words, or why there are none."""
    if "resolution_unknown" in figures:
        return str(figures["resolution_unknown"])
    if figures["resolution_m"] is None:
        return "the halves do not agree on anything"
    length, crossing = f"{1e9 * figures['resolution_m']:.3g} nm", figures["frc_half_bit_cycles_per_px"]
    if crossing >= NYQUIST:
        return f"{length} or finer: the halves agree down to the pixel"
    return f"{length} (half period): the halves agree up to {crossing:.3f} cycles/pixel"
