// The keyboard, and the overlay that says what it does.

import { toggle as toggleProfile } from "./profile.js";
import { savePng } from "./save.js";
import { fit, moveBy, redraw, setTool, view, zoomBy } from "./view.js";

const STEP = 0.1; // of what is seen
const MAPS = ["amplitude", "phase", "sigma", "photons", "source", "intensity", "dpc", "dark_field"];

const dialog = document.getElementById("help");

const move = (x, y) => () => moveBy((x * STEP) / view.zoom, (y * STEP) / view.zoom);

const KEYS = {
  ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
  "+": () => zoomBy(1.6), "=": () => zoomBy(1.6), "-": () => zoomBy(1 / 1.6), 0: fit,
  r: (panel) => panel.chooseRamp(!panel.ramp.checked),
  c: (panel) => panel.range.toggle(),
  p: () => toggleProfile(),
  s: (panel) => savePng(panel),
  a: () => document.getElementById("show-path").click(),
  "?": () => dialog.showModal(),
};
MAPS.forEach((name, i) => { KEYS[i + 1] = (panel) => panel.choose(name); });

// `panels` are the two images; keys go to the one last touched, pointed at or focused.
export function listen(panels) {
  let active = panels[0];
  for (const panel of panels) {
    for (const type of ["pointerdown", "pointerenter", "focusin"]) {
      panel.figure.addEventListener(type, () => { active = panel; });
    }
  }
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    if (event.key === "Escape") setTool(null);
    const act = KEYS[event.key];
    // Arrows scroll what has the focus, unless that is an image or nothing.
    const isArrow = event.key.startsWith("Arrow");
    if (!act || (isArrow && event.target !== document.body && !event.target.matches("canvas"))) return;
    event.preventDefault();
    act(active);
    redraw();
  });
  document.getElementById("help-button").addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
