// A diffraction pattern beside the one that object and probe predict at its place, and where they differ.

import { askArrays, shownScan, whileShown } from "./ask.js";
import { count, digits, motorPlace } from "../format.js";
import { explain } from "../hints.js";
import { drawBar, drawRaster, largest } from "../image/raster.js";
import { view } from "../image/view.js";

const PAUSE_MS = 1000;
const MOST_DIFFERENCE = 3; // √photons: six times what noise makes

const BOX = `
  <div class="box pattern empty">
    <h2><span data-hint="What the detector saw, and what object and probe say it should see there. The same colours stand for the same photons.">Pattern</span><em></em></h2>
    <p class="words" role="status">asking …</p>
    <p class="facts"></p>
    <div class="rasters">
      <figure><figcaption>measured</figcaption><canvas role="img" aria-label="measured pattern" title="photons that the detector counted, on a logarithmic scale; violet pixels are masked"></canvas></figure>
      <figure><figcaption>model</figcaption><canvas role="img" aria-label="pattern of the model" title="photons that object and probe predict, on the same scale"></canvas></figure>
      <figure><figcaption>difference</figcaption><canvas role="img" aria-label="difference of the amplitudes" title="√model − √measured: noise alone makes about ±0.5; red is too bright in the model, blue too dark"></canvas></figure>
    </div>
    <p class="bars">
      <span title="photons of a pixel, logarithmic">0 <canvas class="log"></canvas> <output class="most"></output> photons</span>
      <span class="signed" title="difference of the amplitudes: noise alone makes about ±0.5 √photons">−${MOST_DIFFERENCE} <canvas></canvas> ${MOST_DIFFERENCE} √photons</span>
      <label title="number of a frame; empty: the newest whose place is in the image">frame <input type="number" min="0" step="1" placeholder="newest"></label>
    </p>
  </div>`;

let shown = null;

export function start(section) {
  section.insertAdjacentHTML("beforeend", BOX);
  const box = section.querySelector(".pattern");
  const frame = box.querySelector("input");
  const words = box.querySelector(".words");
  explain(box);
  const look = whileShown(section, PAUSE_MS, (text) => { words.textContent = text; }, async () => {
    const chosen = /^\d{1,12}$/.test(frame.value) ? `?frame=${frame.value}` : "";
    shown = await askArrays(`scans/${shownScan()}/pattern${chosen}`);
    draw(box, shown);
  });
  frame.addEventListener("change", look);
  document.addEventListener("scan", () => { frame.value = ""; });
  new ResizeObserver(() => { if (shown && !section.hidden) draw(box, shown); }).observe(section);
}

function draw(box, pattern) {
  const { measured, model } = pattern.arrays;
  box.classList.remove("empty"); // from here on the canvases have a size
  box.classList.toggle("alone", !model);
  box.querySelector("em").textContent = pattern.scan;
  box.querySelector(".words").textContent = model ? `model: ${pattern.words}` : pattern.words;
  box.querySelector(".facts").textContent = facts(pattern);
  const most = largest(measured.values) || 1;
  const scale = Math.log10(1 + most);
  const inPart = (values) => (i) => Math.log10(1 + values[i]) / scale;
  const [seen, told, off] = box.querySelectorAll(".rasters canvas");
  drawRaster(seen, measured.shape, inPart(measured.values), "violet-yellow", { pixel_m: pattern.pixel_m });
  box.querySelector(".most").textContent = count(Math.round(most));
  drawBar(box.querySelector(".log"), "violet-yellow");
  drawBar(box.querySelector(".signed canvas"), "blue-red");
  if (!model) return;
  drawRaster(told, model.shape, inPart(model.values), "violet-yellow");
  const difference = (i) => Math.sqrt(model.values[i]) - Math.sqrt(measured.values[i]);
  drawRaster(off, model.shape, (i) => 0.5 + difference(i) / (2 * MOST_DIFFERENCE), "blue-red");
}

function facts({ frame, newest, centre_px: centre, photons, model_photons: predicted, error, noise }) {
  const lines = [frame === newest ? `frame ${frame}, the newest` : `frame ${frame}; the newest is ${newest}`];
  if (centre && view.motors) lines.push(`motors at ${motorPlace(centre, view.motors)}`);
  lines.push(`${count(Math.round(photons))} photons${predicted === undefined ? "" : `, model ${count(Math.round(predicted))}`}`);
  if (error !== undefined) lines.push(`error ${digits(error)}, of noise alone ≈ ${digits(noise)}`);
  return lines.join("\n");
}
