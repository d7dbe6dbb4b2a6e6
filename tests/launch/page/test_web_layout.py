"""Nothing leaves the screen: at every size, in every state, with the longest texts."""

from typing import Any

import msgspec
import pytest

from launch.page.server import LiveFeed
from tests.helpers.launch.pages import SIZES, corner_object, viewer, wait_for_text, wait_for_version
from tests.helpers.stream.fake_door import FakeDoor

LONG = "lost 92 frames (" + ", ".join(str(n) for n in range(533, 625)) + "), because the disk was too slow"
UNBROKEN = "a" * 300

# Elements that lie outside of the window, and texts that are cut without a tooltip that has the whole.
FAULTS = """() => {
  const faults = [], root = document.documentElement, scrolls = innerWidth <= 760;
  if (root.scrollWidth > innerWidth) faults.push(`the page is ${root.scrollWidth} px wide`);
  if (!scrolls && root.scrollHeight > innerHeight) faults.push(`the page is ${root.scrollHeight} px high`);
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || !element.checkVisibility()) continue;
    const text = element.textContent.trim();
    const name = `${element.tagName} ${element.id} ${element.className} ${text.slice(0, 30)}`;
    const explained = (element.closest("[title]")?.title ?? "").includes(text.slice(0, 40));
    const isOutside = box.left < -0.5 || box.right > innerWidth + 0.5;
    if (isOutside && !explained && !element.closest("[role=tablist]")) faults.push(`outside: ${name}`);
    const isBelow = !scrolls && box.bottom > innerHeight + 0.5;
    if (isBelow && !element.closest("[role=tabpanel]")) faults.push(`below: ${name}`);
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const { overflowX, overflowY } = getComputedStyle(element);
    const isCut = (overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1)
      || (overflowY === "hidden" && element.scrollHeight > element.clientHeight + 3);
    if (hasText && isCut && !explained) faults.push(`cut: ${name}`);
  }
  return faults;
}"""


def figures(**changes):
    """What the server says of a long running scan."""
    counts = dict.fromkeys(
        ("expected", "recorded", "inferred", "mosaicked", "refined", "lost", "no_position", "pending"),
        123_456_789,
    )
    stages = ("detector", "subscriber", "positions", "inference", "refinement", "stitcher", "policy", "store")
    state = {
        **{"level": "live", "text": "live", "counts": counts, "rates": dict.fromkeys(counts, 98_765.4)},
        **{"scan": f"0003-{UNBROKEN}", "version": 123_456, "run_id": UNBROKEN, "model": UNBROKEN},
        **{"config_hash": UNBROKEN, "time_to_image_ms": [123_456.7, 987_654.3], "epoch": 12_345.67},
        **{"error": 0.0123456, "models": {UNBROKEN: 7, "b" * 40: 8}, "coverage68": 0.68, "coverage95": 0.95},
        **{"sigma_factor": 1.234, "alarm": LONG, "is_final": False},
        "stages": [{"name": name, "text": LONG, "level": "warning"} for name in stages],
        "before": [{"name": f"{n}-{UNBROKEN}", "text": LONG, "level": "busy"} for n in range(5)],
        "events": [{"time_s": 1e9 + n, "level": "error", "source": "store", "text": LONG} for n in range(40)]
        + [{"time_s": 2e9, "level": "error", "source": UNBROKEN, "text": UNBROKEN}],
    }
    return state | changes


STEERED: dict[str, Any] = {
    **{"trouble": "", "token": "t", "plan": "running", "source": "agent", "reason": LONG, "held": True},
    **{"stopped": False, "asked_s": 1.0, "reasons": [f"importance: {LONG}", UNBROKEN], "n_measured": 987_654},
    **{"n_left": 123_456, "max_dose": 1.23456e9, "dose_peak": 1.2e9, "shown_predicted_gain": 1.234e9},
    **{"realised_gain": 1.234e9, "said": [f"held by {LONG}"], "points_px": [[5, 5]], "region_px": None},
    **{"limits": [[0, 1], [0, 1]], "limits_px": [[0, 0], [40, 60]], "region": None},
}
BARE = {"counts": {}, "rates": {}, "level": "waiting", "text": f"nobody has answered at {UNBROKEN} yet"}
STATES = {
    "waiting": BARE,
    "running": figures(),
    "steered": figures(steering=STEERED, text="live: steered"),
    "refused": figures(steering=STEERED | {"trouble": LONG}, level="stale", text=LONG),
    "incomplete": figures(level="incomplete", text=f"incomplete: {LONG}", is_final=True),
    "complete": figures(
        level="complete", text="scan complete: all 800 frames are in the image", is_final=True
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_nothing_leaves_the_screen_and_no_text_is_cut_without_a_tooltip(page, monkeypatch, size):
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    found, said = {}, {}
    monkeypatch.setattr(LiveFeed, "state", lambda feed: msgspec.json.encode(said))
    with FakeDoor() as door, viewer(door.address) as url:
        door.begin("0000-corner")
        door.publish(corner_object(), path=[[10, 10], [10, 50]])
        said.update(STATES["waiting"])
        page.goto(url)
        wait_for_version(page, 1)
        for name, state in STATES.items():
            said.update({"steering": None} | state)
            wait_for_text(page, "#status", state["text"])
            for tab in page.locator("[role=tab]").all():
                tab.click()
                if faults := page.evaluate(FAULTS):
                    found[name, tab.get_attribute("aria-controls")] = faults
        for button in page.locator(
            ".panel:first-child [data-do=profile], [data-do=range], [data-do=save]"
        ).all():
            button.click()
        found["boxes"] = page.evaluate(FAULTS)
        page.keyboard.press("Escape")
        page.click("#help-button")
        found["help"] = page.evaluate(FAULTS)
    assert not [(where, faults) for where, faults in found.items() if faults]
