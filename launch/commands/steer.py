"""The command `steer`: a person's word to a steered scan, and how it stands."""

import getpass
from collections.abc import Sequence
from typing import cast, get_args

from rich.console import Console
from rich.markup import escape

from launch.results.facts_table import FactsTable
from stream.steering.control_client import SteeringClient, SteeringReport
from stream.steering.controls import sentence
from stream.wire.messages import Box, Deed, Steering

STATUS = "status"
ACTIONS = (STATUS, *(deed for deed in get_args(Deed) if deed != "clear"))


def steer(
    client: SteeringClient, action: str, values: Sequence[str] = (), console: Console | None = None
) -> int:
    """Says something to a steered scan, shows how it stands then, and returns 0.

    Parameters
    ----------
    client : SteeringClient
        Hangs up at the end.
    action : str
        status, hold, resume, stop or region.
    values : sequence of str
        Of a region: y low, y high, x low, x high as motor positions, or "clear".

    Raises
    ------
    ValueError
        If that is no action, or the policy refuses.
    TimeoutError
        If nobody answers.
    """
    console = console or Console()
    deed, region = _understood(action, values)
    with client:
        report = client.report() if deed is None else client.say(deed, region, by=getpass.getuser())
    described(report).show(console)
    return 0


def _understood(action: str, values: Sequence[str]) -> tuple[Deed | None, Box | None]:
    if action == "region" and list(values) == ["clear"]:
        return "clear", None
    if action == "region":
        try:
            y_low, y_high, x_low, x_high = map(float, values)
        except ValueError:
            raise ValueError(
                f"region: wanted four numbers Y0 Y1 X0 X1 or 'clear', got {' '.join(values)!r}"
            ) from None
        return "region", ((y_low, y_high), (x_low, x_high))
    if action not in ACTIONS or values:
        wrong = " ".join([action, *values])
        raise ValueError(f"wanted one of {', '.join(ACTIONS)} (a region with its numbers), got {wrong!r}")
    return (None if action == STATUS else cast(Deed, action)), None


def described(report: SteeringReport) -> FactsTable:
    """Returns what a terminal shows: the same facts as the page."""
    facts = report.steering
    rows = FactsTable()
    plans = {"none": "no plan has asked yet", "running": f"heard {facts.asked_s:.1f} s ago", "ended": "ended"}
    words = ["held"] * facts.held + ["stopped"] * facts.stopped
    rows.add_row("plan", ", ".join([plans[facts.plan], *words]))
    rows.add_row("last decision", escape(f"{facts.source}: {facts.reason}") if facts.source else "none yet")
    rows.add_row("policy", escape("; ".join(facts.reasons)) or "no question yet")
    n_next = f"{len(report.points)} recommended"
    rows.add_row("points", f"{facts.n_measured} measured, {facts.n_left} left, {n_next}")
    most = "no limit" if facts.max_dose is None else f"{facts.max_dose:.4g} allowed"
    rows.add_row("dose", f"{facts.dose_peak:.4g} photons on the pixel that has most, {most}")
    rows.add_row("gain of the batch shown last", _gain(facts))
    rows.add_row("gain of the next batch", f"{facts.predicted_gain:.3g} rad²·px predicted")
    rows.add_row("region", _box(facts.region, facts.unit) if facts.region else "everywhere within the limits")
    rows.add_row("limits", _box(facts.limits, facts.unit))
    for control in facts.controls[-3:]:
        rows.add_row("said", escape(sentence(control)))
    return rows


def _gain(facts: Steering) -> str:
    """Return what was predicted of a batch and what came true of it, on the same ground."""
    predicted, realised = facts.shown_predicted_gain, facts.realised_gain
    if not predicted:
        return "no batch is in the image yet"
    return f"{predicted:.3g} rad²·px predicted, {realised:.3g} came true ({realised / predicted:.0%})"


def _box(box: Box, unit: str) -> str:
    (y_low, y_high), (x_low, x_high) = box
    return f"y {y_low:.6g} to {y_high:.6g}, x {x_low:.6g} to {x_high:.6g} {unit}"
