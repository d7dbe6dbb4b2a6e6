// The probe as it is now, mode by mode, beside the newest diffraction pattern and the model's.

import { askArrays, shownScan, whileShown } from "./ask.js";
import { count, digits, percent } from "../format.js";
import { explain } from "../hints.js";
import { start as startPattern } from "./pattern.js";
import { drawRaster, largest } from "../image/raster.js";

const PAUSE_MS = 1000;
const FAINT = 0.05; // of the brightest pixel: the phase of less says nothing

const BOX = `
  <div class="box modes">
    <h2><span data-hint="The wave that falls on the sample: how strong it is at each place, and its phase. Partly coherent light needs several modes, which add up in brightness.">Probe</span><em></em></h2>
    <p class="words" role="status">asking …</p>
    <div class="rasters"></div>
  </div>`;

let key = "";
let shown = null;

export function start(section) {
  section.innerHTML = BOX;
  const box = section.querySelector(".modes");
  const words = box.querySelector(".words");
  explain(box);
  whileShown(section, PAUSE_MS, (text) => { words.textContent = text; }, async () => {
    const probe = await askArrays(`scans/${shownScan()}/probe?after=${encodeURIComponent(key)}`);
    if (!probe) return;
    ({ key } = probe);
    shown = probe;
    draw(box, probe);
  });
  document.addEventListener("scan", () => {
    key = "";
    box.querySelector(".rasters").replaceChildren();
  });
  new ResizeObserver(() => { if (shown && !section.hidden) draw(box, shown); }).observe(section);
  startPattern(section);
}

function draw(box, probe) {
  const { amplitude, phase } = probe.arrays;
  const [nModes, height, width] = amplitude.shape;
  box.querySelector("em").textContent = probe.scan;
  const more = probe.shares.length > nModes ? `; ${nModes} of ${probe.shares.length} modes` : "";
  box.querySelector(".words").textContent = `${probe.words}; ${count(Math.round(probe.photons))} photons per frame${more}`;
  const rasters = box.querySelector(".rasters");
  while (rasters.children.length > nModes) rasters.lastChild.remove();
  while (rasters.children.length < nModes) rasters.append(figure(rasters.children.length + 1));
  [...rasters.children].forEach((mode, index) => {
    const size = height * width;
    const amplitudes = amplitude.values.subarray(index * size, (index + 1) * size);
    const phases = phase.values.subarray(index * size, (index + 1) * size);
    const most = largest(amplitudes) || 1;
    mode.querySelector("figcaption").textContent = `mode ${index + 1}: ${share(probe.shares[index])} of the power`;
    const [strength, angle] = mode.querySelectorAll("canvas");
    strength.setAttribute("aria-label", `amplitude of mode ${index + 1}, up to ${digits(most)} √photons`);
    drawRaster(strength, [height, width], (i) => amplitudes[i] / most, "grey", { pixel_m: probe.pixel_m });
    drawRaster(angle, [height, width],
      (i) => (amplitudes[i] < FAINT * most ? NaN : (phases[i] + Math.PI) / (2 * Math.PI)), "cyclic", { unknown: 0 });
  });
}

const share = (part) => (part >= 0.1 ? percent(part) : `${digits(100 * part, 2)} %`);

function figure(number) {
  const element = document.createElement("figure");
  element.innerHTML = `
    <figcaption></figcaption>
    <canvas role="img" title="amplitude of mode ${number}: white is the strongest place"></canvas>
    <canvas role="img" aria-label="phase of mode ${number}" title="phase of mode ${number}: bright is 0, dark half a turn, warm ahead and cold behind; only where there is light"></canvas>`;
  return element;
}
