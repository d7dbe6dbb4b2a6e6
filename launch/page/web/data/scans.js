// Earlier images of the running scan, and the scans of its folder, which a click puts on the panels.

import { askArrays, askJson, askPacket, openScan, shownScan, whileShown } from "./ask.js";
import { clock, count } from "../format.js";
import { explain } from "../hints.js";
import { goLive, show } from "../image/pictures.js";
import { drawRaster } from "../image/raster.js";
import { mount } from "./versions.js";

const PAUSE_MS = 3000;
const PAGE = 24; // scans asked for at once

const BOXES = `
  <div class="box versions"></div>
  <div class="box scan-list">
    <h2><span data-hint="Scans in the folder that this run saves to, the newest first. A click shows the final image of one; the live image comes back with the button above.">Scans</span><em></em></h2>
    <p class="words" role="status">asking …</p>
    <ul></ul>
    <button class="older" hidden>older scans</button>
  </div>`;

const day = (seconds) => new Date(1000 * seconds).toLocaleDateString("en-GB", { day: "numeric", month: "short" });

// Thumbnails are drawn when they come into view.
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) thumbnail(target);
});

export function start(section) {
  section.innerHTML = BOXES;
  const list = section.querySelector("ul");
  const words = section.querySelector(".words");
  const older = section.querySelector(".older");
  const takeVersions = mount(section.querySelector(".versions"));
  explain(section);
  const items = new Map(); // name -> element

  async function take(before) {
    const answer = await askJson(`scans?n=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`);
    for (const scan of answer.scans) put(list, items, scan);
    section.querySelector(".scan-list em").textContent = `${count(answer.n_scans)} in this folder`;
    words.textContent = answer.n_scans ? "" : "no scan has begun yet";
    older.hidden = items.size >= answer.n_scans;
  }

  whileShown(section, PAUSE_MS, (text) => { words.textContent = text; }, async () => {
    await takeVersions();
    await take("");
  });
  older.addEventListener("click", () => {
    const oldest = [...items.keys()].sort()[0];
    take(oldest).catch((error) => { words.textContent = error.message; });
  });
  list.addEventListener("click", async ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    try {
      await open(button.dataset);
    } catch (error) {
      words.textContent = error.message;
    }
  });
  document.addEventListener("scan", () => {
    for (const button of list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.scan === shownScan());
    }
  });
}

async function open({ scan, state, label }) {
  if (state === "running") {
    goLive();
    return;
  }
  const packet = await askPacket(`scans/${encodeURIComponent(scan)}/picture`);
  openScan(scan);
  show(packet, `final image of ${label}`);
}

function put(list, items, scan) {
  let item = items.get(scan.scan);
  if (!item) {
    item = document.createElement("li");
    item.innerHTML = '<button aria-pressed="false"><canvas></canvas><b></b><span class="when"></span><span class="state"></span></button>';
    items.set(scan.scan, item);
    const next = [...items.keys()].filter((name) => name < scan.scan).sort().at(-1);
    list.insertBefore(item, next ? items.get(next) : null);
  }
  const button = item.firstChild;
  const when = scan.started_s ? `${day(scan.started_s)}, ${clock(scan.started_s)}` : "";
  const isWhole = !scan.n_expected || scan.n_expected === scan.n_recorded;
  const frames = `${count(scan.n_recorded)}${isWhole ? "" : ` of ${count(scan.n_expected)}`} frames`;
  Object.assign(button.dataset, { scan: scan.scan, state: scan.state, label: `${scan.scan}, ${when}` });
  button.disabled = !scan.has_image && scan.state !== "running";
  button.title = [scan.scan, scan.note, button.disabled ? "there is no image of it" : ""].filter(Boolean).join("; ");
  button.querySelector("b").textContent = scan.scan;
  button.querySelector(".when").textContent = when;
  button.querySelector(".state").textContent = scan.state === "unreadable" ? scan.note : `${scan.state}, ${frames}`;
  const canvas = button.querySelector("canvas");
  canvas.dataset.scan = scan.has_image ? scan.scan : "";
  if (canvas.dataset.drawn !== scan.state) seen.observe(canvas);
}

async function thumbnail(canvas) {
  seen.unobserve(canvas);
  const { scan, state } = canvas.closest("button").dataset;
  if (!canvas.dataset.scan) return;
  try {
    const { arrays, low, high, is_cyclic: isCyclic } = await askArrays(`scans/${encodeURIComponent(scan)}/thumbnail`);
    const { shape, values } = arrays.phase;
    const table = isCyclic ? "cyclic" : "blue-yellow";
    drawRaster(canvas, shape, (i) => (values[i] - low) / Math.max(high - low, 1e-9), table, { unknown: 0 });
    canvas.dataset.drawn = state;
  } catch {
    // there is no image of it yet; the next list asks again
  }
}
