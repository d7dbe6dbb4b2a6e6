// A slider over earlier versions of the live image; at its right end the live one.

import { askJson, askPacket, openScan, shownScan } from "./ask.js";
import { clock, count } from "../format.js";
import { goLive, show } from "../image/pictures.js";

const BOX = `
  <label data-hint="Versions of the running scan's image that the page has kept, at most at half the resolution of the live one. The right end is the live image.">earlier images
    <input type="range" min="0" max="0" value="0" step="1" aria-label="version of the image">
  </label>
  <output>live</output>`;

export function mount(element) {
  element.innerHTML = BOX;
  const slider = element.querySelector("input");
  const output = element.querySelector("output");
  let kept = { scan: "", versions: [] };
  let isMine = false; // whether what is on the panels was put there by the slider
  let wanted = 0; // asked for last: an answer that comes later than the next question is not shown

  const atEnd = () => Number(slider.value) === kept.versions.length;

  function label() {
    const version = kept.versions[Number(slider.value)];
    output.textContent = version
      ? `version ${count(version.version)} at ${clock(version.time_s)}, ${count(version.frames)} frames`
      : kept.versions.length ? "live" : "live; none is kept yet";
  }

  async function choose() {
    label();
    wanted += 1;
    const own = wanted;
    if (atEnd()) {
      goLive();
      return;
    }
    const version = kept.versions[Number(slider.value)];
    try {
      const packet = await askPacket(`versions/${encodeURIComponent(kept.scan)}/${version.version}`);
      if (own !== wanted) return;
      openScan(null);
      isMine = true;
      show(packet, `version ${count(version.version)} of ${kept.scan}, ${clock(version.time_s)}, ${count(version.frames)} frames`);
    } catch (error) {
      output.textContent = error.message;
    }
  }

  slider.addEventListener("input", choose);
  function leave() {
    isMine = false;
    slider.value = slider.max;
    label();
  }

  document.addEventListener("live", leave);
  document.addEventListener("scan", () => { if (shownScan() !== "newest") leave(); });

  // Takes the list anew; the version that is shown stays where it is.
  return async () => {
    const chosen = atEnd() ? null : kept.versions[Number(slider.value)].version;
    kept = await askJson("versions");
    slider.max = kept.versions.length;
    const index = kept.versions.findIndex(({ version }) => version === chosen);
    slider.value = index < 0 && !isMine ? kept.versions.length : Math.max(index, 0);
    slider.disabled = !kept.versions.length;
    label();
  };
}
