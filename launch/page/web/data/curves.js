// How the error fell, epoch by epoch, and at the end how far two halves of the frames agree.

import { askJson, shownScan, whileShown } from "./ask.js";
import { count, digits, length } from "../format.js";
import { explain } from "../hints.js";
import { Plot } from "./plot.js";

const PAUSE_MS = 2000;
const COLOURS = { error: "#56b6c2", frc: "#7bbf86", threshold: "#e0aa4f" };

const BOXES = `
  <div class="box error empty">
    <h2><span data-hint="How far the model's diffraction amplitudes are from the measured ones, at the end of each epoch of refinement. It rises when new frames come, and says whether refinement still moves; how true the image is it does not say.">Error</span><em></em></h2>
    <p class="words" role="status">asking …</p>
    <div class="plot"><canvas role="img" aria-label="error over time"></canvas></div>
    <label title="what runs along the axis">over <select name="over"><option value="time_s">time</option><option value="order">epochs</option></select></label>
    <output></output>
  </div>
  <div class="box frc empty">
    <h2><span data-hint="Fourier ring correlation: two images from half of the frames each are compared at every fineness of detail. Where the curve falls below the dashed half-bit threshold, details are noise.">Resolution</span><em></em></h2>
    <p class="words" role="status">asking …</p>
    <div class="plot"><canvas role="img" aria-label="correlation of halves over spatial frequency"></canvas></div>
    <output></output>
  </div>`;

export function start(section) {
  section.innerHTML = BOXES;
  explain(section);
  const [error, frc] = section.querySelectorAll(".box");
  const over = error.querySelector("select");
  const plots = [new Plot(error.querySelector("canvas"), (x) => readError(error, x)), new Plot(frc.querySelector("canvas"), (x) => readFrc(frc, x))];
  let curves = null;
  const draw = () => {
    showError(error, plots[0], curves, over.value);
    showFrc(frc, plots[1], curves);
  };
  const fail = (text) => { for (const box of [error, frc]) box.querySelector(".words").textContent = text; };
  whileShown(section, PAUSE_MS, fail, async () => {
    curves = await askJson(`scans/${shownScan()}/curves`);
    draw();
  });
  over.addEventListener("change", () => { if (curves) draw(); });
}

// Ends of an axis a little beyond the values.
function around(values, isLog) {
  const known = values.filter((value) => value !== null && (!isLog || value > 0));
  const [low, high] = [Math.min(...known), Math.max(...known)];
  if (isLog) return { low: low / 1.1, high: Math.max(high, low * 1.1) * 1.1, isLog };
  return { low, high: Math.max(high, low + 1e-9), isLog };
}

function say(box, scan, words, hasPlot) {
  box.querySelector("em").textContent = scan;
  box.querySelector(".words").textContent = words;
  box.classList.toggle("empty", !hasPlot);
}

let errors = null; // what the error plot shows: {x, curve, over}

function showError(box, plot, { scan, error }, over) {
  if (error.why) {
    errors = null;
    say(box, scan, error.why, false);
    return;
  }
  const last = error.error.length - 1;
  const x = over === "order" ? error.error.map((_, i) => i + 1) : error.time_s;
  errors = { x, curve: error, over };
  say(box, scan, `${digits(error.error[last] ?? NaN)} after ${digits(error.epoch[last], 3)} visits of ${count(error.n_frames[last])} frames`, true);
  const label = over === "order" ? "epochs" : "time since the first frame / s";
  plot.show(
    { x: { label, ...around([0, ...x]) }, y: { label: "amplitude error", ...around(error.error, true) } },
    [{ x, y: error.error, colour: COLOURS.error, width: 2 }],
  );
}

function nearest(values, x) {
  let best = 0;
  values.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(values[best] - x)) best = i; });
  return best;
}

function readError(box, x) {
  const output = box.querySelector("output");
  output.textContent = "";
  if (x === null || !errors) return;
  const { curve } = errors;
  const i = nearest(errors.x, x);
  output.textContent = `${digits(curve.time_s[i])} s, epoch ${i + 1}: error ${digits(curve.error[i] ?? NaN)}, ${count(curve.n_frames[i])} frames`;
}

let correlation = null; // {x, frc}

function showFrc(box, plot, { scan, frc }) {
  if (frc.why) {
    correlation = null;
    say(box, scan, frc.why, false);
    return;
  }
  const x = frc.frequency.map((perPixel) => perPixel / frc.pixel_m / 1e6);
  correlation = { x, frc };
  const found = frc.resolution_m;
  say(box, scan, frc.words, true);
  const lines = [
    { x, y: frc.half_bit, colour: COLOURS.threshold, dash: [6, 4] },
    { x, y: frc.correlation, colour: COLOURS.frc, width: 2 },
  ];
  if (found) lines.push({ x: [0.5e-6 / found, 0.5e-6 / found], y: [-1, 1], colour: "#dbe2ea", dash: [2, 3] });
  const y = { label: "correlation", low: Math.min(0, ...frc.correlation), high: 1.02 };
  plot.show({ x: { label: "spatial frequency / µm⁻¹", ...around([0, ...x]) }, y }, lines);
}

function readFrc(box, x) {
  const output = box.querySelector("output");
  output.textContent = "";
  if (x === null || !correlation) return;
  const i = nearest(correlation.x, x);
  const { frc } = correlation;
  const detail = correlation.x[i] > 0 ? `details of ${length(0.5e-6 / correlation.x[i])}` : "the mean";
  output.textContent = `${detail}: correlation ${digits(frc.correlation[i])}, threshold ${digits(frc.half_bit[i])}`;
}
