// Which colours a panel gives to which values: percentiles of what is lit, or two fixed numbers, and a colour map;
// kept for each map by itself.

import { names, ofBar, ofLevels, ofSource, usual } from "./colourmaps.js";
import { short } from "../format.js";
import { remember, remembered } from "../settings.js";

const WHOLE_TURN = 2 * Math.PI;

export class Range {
  constructor(figure, key, changed) {
    this.key = key;
    this.changed = changed;
    this.map = null;
    this.figure = figure;
    this.form = figure.querySelector("form.range");
    this.listen();
  }

  // What a person chose: {percentile} or {limits: [low, high]}, and {colours}.
  get chosen() {
    return remembered(`${this.key} ${this.map.name}`, {});
  }

  choose(change) {
    const chosen = { ...this.chosen, ...change };
    if ("limits" in change) delete chosen.percentile;
    if ("percentile" in change) delete chosen.limits;
    remember(`${this.key} ${this.map.name}`, chosen);
    this.changed();
  }

  // The values of the first and the last colour.
  get limits() {
    const { map, chosen } = this;
    if (chosen.limits) return chosen.limits;
    if (map.is_cyclic && chosen.percentile === undefined) return [-Math.PI, Math.PI];
    const p = chosen.percentile ?? this.usualPercentile;
    const [low, high] = [map.from_zero ? 0 : map.percentiles[p], map.percentiles[100 - p]];
    return [low, Math.max(high, low + 1e-3 * Math.max(Math.abs(low), 1e-3))]; // a flat map has a range, too
  }

  get table() {
    const [low, high] = this.limits;
    return this.chosen.colours ?? usual(this.map, this.map.is_cyclic && high - low > 0.999 * WHOLE_TURN);
  }

  // Colours of all levels of `map`; the bar and the form follow.
  coloursOf(map, picture) {
    this.map = map;
    this.usualPercentile = picture.percentile;
    if (map.name === "source") return ofSource(); // two kinds, not a range
    this.drawBar();
    this.fill();
    return ofLevels(map, this.table, this.limits);
  }

  // Writes a limit so that it says as much as the range needs.
  label(value) {
    const [low, high] = this.limits;
    if (Math.abs(Math.abs(value) - Math.PI) < 1e-6) return value < 0 ? "−π" : "π";
    return short(value, (high - low) / 10);
  }

  drawBar() {
    const [low, high] = this.limits;
    const bar = this.figure.querySelector("canvas.bar");
    const image = new ImageData(bar.width, 1);
    new Uint32Array(image.data.buffer).set(ofBar(this.table, bar.width));
    bar.getContext("2d").putImageData(image, 0, 0);
    this.figure.querySelector(".low").textContent = this.label(low);
    this.figure.querySelector(".high").textContent = this.label(high);
    this.figure.querySelector(".unit").textContent = this.map.unit;
  }

  // The form shows what holds, unless somebody is typing in it.
  fill() {
    const { form } = this;
    if (form.hidden || form.contains(document.activeElement)) return;
    const { percentile, limits, colours } = this.chosen;
    const [low, high] = this.limits;
    form.elements.of.value = limits ? "fixed" : String(percentile ?? (this.map.is_cyclic ? "turn" : this.usualPercentile));
    form.elements.low.value = low.toPrecision(4);
    form.elements.high.value = high.toPrecision(4);
    form.elements.colours.value = colours ?? "";
  }

  toggle() {
    const { form } = this;
    form.hidden = !form.hidden;
    if (form.hidden || !this.map || this.map.name === "source") return;
    if (form.elements.colours.options.length === 1) {
      form.elements.colours.append(...names().map((name) => new Option(name, name)));
    }
    this.fill();
    form.elements.of.focus();
  }

  listen() {
    const { form } = this;
    const { of, low, high, colours } = form.elements;
    form.addEventListener("submit", (event) => event.preventDefault());
    of.addEventListener("change", () => {
      if (of.value === "fixed") this.choose({ limits: this.limits });
      else this.choose({ percentile: of.value === "turn" ? undefined : Number(of.value) });
      [low.value, high.value] = this.limits.map((value) => value.toPrecision(4));
    });
    for (const field of [low, high]) {
      field.addEventListener("change", () => {
        const limits = [Number(low.value), Number(high.value)];
        const isRange = low.value !== "" && high.value !== "" && limits[0] < limits[1];
        high.setCustomValidity(isRange ? "" : "the second number must be the larger one");
        if (!isRange) return high.reportValidity();
        of.value = "fixed";
        return this.choose({ limits });
      });
    }
    colours.addEventListener("change", () => this.choose({ colours: colours.value || undefined }));
    form.addEventListener("keydown", (event) => { if (event.key === "Escape") this.toggle(); });
    form.querySelector("[data-close]").addEventListener("click", () => this.toggle());
  }
}
