// One image with its choice of maps, colour bar and readout under the pointer.

import { isLoaded, valueOf } from "./colourmaps.js";
import { length, motorPlace, rounded } from "../format.js";
import { listen } from "./gestures.js";
import { drawPath, drawProfileLine, drawScaleBar, drawSteering } from "./overlay.js";
import { Profile, toggle as toggleProfile } from "./profile.js";
import { Range } from "./range.js";
import { saveData, savePng } from "./save.js";
import { remember, remembered } from "../settings.js";
import { fit, redraw, share, view, zoomBy } from "./view.js";

const BUTTON_ZOOM = 1.6;
// What is shown of the patterns alone while there is no image of the sample yet.
const UNTIL_THEN = { amplitude: "intensity", phase: "dpc" };
const BUTTONS = {
  in: () => zoomBy(BUTTON_ZOOM),
  out: () => zoomBy(1 / BUTTON_ZOOM),
  fit,
  range: (panel) => panel.range.toggle(),
  profile: toggleProfile,
  save: (panel) => { panel.saving.hidden = !panel.saving.hidden; },
};

export class Panel {
  constructor(figure, template) {
    figure.append(template.content.cloneNode(true));
    this.figure = figure;
    this.canvas = figure.querySelector(".image");
    this.drawn = document.createElement("canvas");
    this.picture = null;
    this.isStored = false;
    this.key = `panel ${figure.dataset.map}`;
    for (const button of figure.querySelectorAll("nav button")) {
      button.addEventListener("click", () => this.choose(button.dataset.map));
    }
    for (const button of figure.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => { BUTTONS[button.dataset.do](this); redraw(); });
    }
    this.patterns = figure.querySelector("nav select");
    this.patterns.addEventListener("change", () => this.choose(this.patterns.value));
    this.ramp = figure.querySelector(".ramp input");
    this.ramp.checked = remembered(`${this.key} ramp`, false);
    this.ramp.addEventListener("change", () => this.chooseRamp(this.ramp.checked));
    this.range = new Range(figure, this.key, () => { this.colour(); this.draw(); });
    this.profile = new Profile(this);
    this.saving = figure.querySelector(".saving");
    this.saving.addEventListener("click", (event) => this.save(event.target.dataset.save));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    share(this);
    listen(this);
    this.choose(remembered(this.key, figure.dataset.map));
  }

  choose(name) {
    this.figure.dataset.map = name;
    remember(this.key, name);
    for (const button of this.figure.querySelectorAll("nav button")) {
      button.setAttribute("aria-pressed", button.dataset.map === name);
    }
    const isOfPatterns = [...this.patterns.options].some(({ value }) => value === name);
    this.patterns.value = isOfPatterns ? name : "";
    this.patterns.classList.toggle("chosen", isOfPatterns);
    this.colour();
    this.draw();
  }

  chooseRamp(isOn) {
    this.ramp.checked = isOn;
    remember(`${this.key} ramp`, isOn);
    this.colour();
    this.draw();
  }

  show(picture, isStored) {
    this.picture = picture;
    this.isStored = isStored;
    this.colour();
    this.draw();
  }

  // The map that a person wants to see.
  get wanted() {
    const { map } = this.figure.dataset;
    if (this.picture?.has_object === false && UNTIL_THEN[map]) return UNTIL_THEN[map];
    return map === "phase" && this.ramp.checked ? "phase_with_ramp" : map;
  }

  // The map on the screen: the one wanted, or until it has come the one before.
  get map() {
    const maps = this.picture?.maps ?? {};
    if (maps[this.wanted]) this.figure.dataset.shown = this.wanted;
    return maps[this.figure.dataset.shown];
  }

  get hasImage() {
    return Boolean(this.map?.levels.length) && isLoaded();
  }

  // Levels to colours, once per picture; drawing then only scales.
  colour() {
    if (!this.hasImage) return;
    const { map, picture } = this;
    const [height, width] = picture.shape;
    this.drawn.width = width;
    this.drawn.height = height;
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = this.range.coloursOf(map, picture);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[map.levels[i]];
    this.drawn.getContext("2d").putImageData(image, 0, 0);
    if (map.name !== this.figure.dataset.map && map.name === UNTIL_THEN[this.figure.dataset.map]) {
      const what = this.patterns.querySelector(`[value=${map.name}]`).textContent;
      this.figure.querySelector(".unit").textContent = `${map.unit}: ${what} of the patterns, until there is an image`;
    }
  }

  // Where the image lies on the canvas: corner and size of a drawn pixel, in canvas pixels.
  placement() {
    const [height, width] = this.picture.shape;
    const margin = 8 * devicePixelRatio;
    const whole = Math.min((this.canvas.width - margin) / width, (this.canvas.height - margin) / height);
    const scale = whole * view.zoom;
    return {
      scale,
      left: this.canvas.width / 2 - view.x * width * scale,
      top: this.canvas.height / 2 - view.y * height * scale,
    };
  }

  draw() {
    this.canvas.width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    if (!this.hasImage) return;
    this.profile.draw();
    this.drawOn(this.canvas.getContext("2d"));
    this.readOut();
  }

  async save(kind) {
    if (!kind) return;
    const trouble = this.saving.querySelector("[role=alert]");
    trouble.textContent = "";
    if (kind === "png") savePng(this);
    else trouble.textContent = await saveData(this, kind);
    this.saving.hidden = !trouble.textContent;
  }

  drawOn(context) {
    const { scale, left, top } = this.placement();
    const { origin_px: [top0, left0], binning } = this.picture;
    const at = ([y, x]) => [left + ((x - left0) / binning) * scale, top + ((y - top0) / binning) * scale];
    context.imageSmoothingEnabled = scale < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.drawn, left, top, this.drawn.width * scale, this.drawn.height * scale);
    if (view.showPath) drawPath(context, this.picture, at, this.isStored);
    if (view.steering && !this.isStored) drawSteering(context, at);
    if (view.line) drawProfileLine(context, at);
    drawScaleBar(context, this.picture, scale, this.canvas, this.profile.height);
    this.drawPointer(context, scale, left, top);
  }

  // Row and column of the drawn pixel under the pointer, or null.
  get pointed() {
    if (!view.pointer) return null;
    const [height, width] = this.picture.shape;
    const [row, column] = [Math.floor(view.pointer.y * height), Math.floor(view.pointer.x * width)];
    return row >= 0 && row < height && column >= 0 && column < width ? [row, column] : null;
  }

  drawPointer(context, scale, left, top) {
    if (!this.pointed) return;
    const [row, column] = this.pointed;
    const [x, y] = [left + (column + 0.5) * scale, top + (row + 0.5) * scale];
    context.strokeStyle = "rgba(255, 255, 255, 0.35)";
    context.lineWidth = 1;
    context.strokeRect(x - 9, y - 9, 18, 18);
  }

  readOut() {
    const output = this.figure.querySelector("output");
    if (!this.pointed) {
      output.textContent = "";
      return;
    }
    const [row, column] = this.pointed;
    output.textContent = `${this.placeAt(row, column)}   ${this.valueAt(row * this.picture.shape[1] + column)}`;
  }

  // Motor positions, which steering and plans take; before they are known, the way from the image's corner.
  placeAt(row, column) {
    const { pixel_m: pixel, origin_px: origin, binning } = this.picture;
    const { motors } = view;
    if (motors?.scan !== this.picture.scan) return `x ${length(column * pixel)}  y ${length(row * pixel)}`;
    return motorPlace([row, column].map((index, axis) => origin[axis] + (index + 0.5) * binning - 0.5), motors);
  }

  valueAt(index) {
    const { map } = this;
    const { name, unit, levels } = map;
    const level = levels[index];
    if (!level) return "unknown";
    if (name === "source") return level === 2 ? "refined" : "network";
    const beyond = level === 1 && map.least < map.low ? "≤ " : level === 65535 && map.most > map.high ? "≥ " : "";
    const { sigma } = this.picture.maps;
    const error = name.startsWith("phase") && sigma?.levels[index] ? valueOf(sigma, sigma.levels[index]) : null;
    const [low, high] = this.range.limits;
    const value = rounded(valueOf(map, level), error ?? (high - low) / 50);
    return error === null ? `${beyond}${value} ${unit}` : `${beyond}${value} ± ${rounded(error, error)} ${unit}`;
  }

  // A place on the canvas, CSS pixels, in parts of the image's size.
  locate(x, y) {
    const { scale, left, top } = this.placement();
    const [height, width] = this.picture.shape;
    return {
      x: (x * devicePixelRatio - left) / (width * scale),
      y: (y * devicePixelRatio - top) / (height * scale),
    };
  }

  // Where an event was, absolute object pixels (y, x).
  locatePixel(event) {
    const { x, y } = this.locate(event.offsetX, event.offsetY);
    const { origin_px: [top0, left0], binning, shape: [height, width] } = this.picture;
    return [top0 + y * height * binning, left0 + x * width * binning];
  }
}
