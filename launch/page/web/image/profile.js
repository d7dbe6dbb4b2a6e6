// The values of a panel along a line that is drawn over the image.

import { valueOf } from "./colourmaps.js";
import { digits } from "../format.js";
import { remember, remembered } from "../settings.js";
import { redraw, setTool, view } from "./view.js";

const WHOLE_TURN = 2 * Math.PI;
const INK = { axis: "#9dabba", grid: "#2f3a48", line: "#7fe0f0" };

const width = () => remembered("profile width", 1);

// Values along a line between two absolute object pixels (y, x), at every drawn pixel of its length, each the mean
// of `nWide` pixels across; NaN where nothing is known. A wrapped phase goes on without jumps.
export function sample(picture, map, [from, to], nWide) {
  const { origin_px: origin, binning, shape: [height, nColumns] } = picture;
  const [[y0, x0], [y1, x1]] = [from, to].map((point) => point.map((v, axis) => (v - origin[axis]) / binning));
  const [dy, dx] = [y1 - y0, x1 - x0];
  const lengthPx = Math.hypot(dy, dx);
  const n = Math.max(Math.ceil(lengthPx) + 1, 2);
  const values = new Float32Array(n).fill(NaN);
  let before = 0;
  for (let i = 0; i < n; i++) {
    let [sum, count] = [0, 0];
    for (let j = 0; j < nWide; j++) {
      const across = (j - (nWide - 1) / 2) / (lengthPx || 1);
      const row = Math.floor(y0 + (dy * i) / (n - 1) + dx * across);
      const column = Math.floor(x0 + (dx * i) / (n - 1) - dy * across);
      const isInside = row >= 0 && row < height && column >= 0 && column < nColumns;
      const level = isInside ? map.levels[row * nColumns + column] : 0;
      if (!level) continue;
      let value = valueOf(map, level);
      if (map.is_cyclic) value += WHOLE_TURN * Math.round((before - value) / WHOLE_TURN);
      sum += value;
      count += 1;
    }
    if (count) values[i] = before = sum / count;
  }
  return { values, lengthM: lengthPx * picture.pixel_m };
}

// About `n` round numbers between `low` and `high`.
function ticks(low, high, n) {
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

function drawChart(canvas, { values, lengthM }, unit) {
  const scale = devicePixelRatio;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const context = canvas.getContext("2d");
  const known = values.filter(Number.isFinite);
  if (!known.length || !lengthM) return;
  let [low, high] = [Math.min(...known), Math.max(...known)];
  const room = 0.06 * (high - low) || 0.01 * Math.abs(high) || 1;
  [low, high] = [low - room, high + room];
  const box = { left: 58 * scale, right: canvas.width - 12 * scale, top: 18 * scale, bottom: canvas.height - 20 * scale };
  const x = (t) => box.left + t * (box.right - box.left);
  const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  drawAxes(context, box, x, y, [low, high], lengthM, unit);
  const line = new Path2D();
  let isDown = false;
  values.forEach((value, i) => {
    if (!Number.isFinite(value)) isDown = false;
    else if (isDown) line.lineTo(x(i / (values.length - 1)), y(value));
    else line.moveTo(x(i / (values.length - 1)), y(value));
    if (Number.isFinite(value)) isDown = true;
  });
  context.strokeStyle = INK.line;
  context.lineWidth = 1.5 * scale;
  context.stroke(line);
}

function drawAxes(context, box, x, y, [low, high], lengthM, unit) {
  const scale = devicePixelRatio;
  context.font = `${11 * scale}px system-ui, "DejaVu Sans", sans-serif`;
  context.lineWidth = scale;
  context.strokeStyle = INK.grid;
  context.fillStyle = INK.axis;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const value of ticks(low, high, 4)) {
    context.strokeRect(box.left, y(value), box.right - box.left, 0);
    context.fillText(digits(value), box.left - 5 * scale, y(value));
  }
  context.textAlign = "center";
  const lengthUm = lengthM * 1e6;
  for (const value of ticks(0, lengthUm, 5)) {
    context.fillText(digits(value), x(value / lengthUm), box.bottom + 10 * scale);
  }
  context.textAlign = "right";
  context.fillText("µm", box.right, box.bottom - 8 * scale);
  context.textAlign = "left";
  context.fillText(unit, 6 * scale, 8 * scale);
}

// The part of a panel that shows its profile.
export class Profile {
  constructor(panel) {
    this.panel = panel;
    this.box = panel.figure.querySelector(".profile");
    const field = this.box.querySelector("input");
    field.value = width();
    field.addEventListener("change", () => {
      const wanted = Math.min(Math.max(Math.round(Number(field.value)) || 1, 1), 99);
      remember("profile width", wanted);
      redraw();
    });
    this.box.querySelector("[data-close]").addEventListener("click", toggle);
  }

  // How much of the image it covers, CSS pixels.
  get height() {
    return this.box.hidden ? 0 : this.box.offsetHeight;
  }

  draw() {
    const { map, picture } = this.panel;
    this.box.hidden = !view.line || map.name === "source";
    const field = this.box.querySelector("input");
    if (document.activeElement !== field) field.value = width();
    if (!this.box.hidden) drawChart(this.box.querySelector("canvas"), sample(picture, map, view.line, width()), map.unit);
  }
}

const tool = { name: "profile", draw: (line) => { view.line = line; }, done: () => {} };

// Shows the values along a level line through what is seen, and lets another line be drawn; or takes all that away.
export function toggle() {
  const { picture } = view;
  if (view.line || !picture) {
    view.line = null;
    setTool(null);
  } else {
    const [height, nColumns] = picture.shape;
    const { origin_px: [top, left], binning } = picture;
    const [y, reach] = [top + view.y * height * binning, (0.4 * nColumns * binning) / view.zoom];
    const middle = left + view.x * nColumns * binning;
    view.line = [[y, middle - reach], [y, middle + reach]];
    setTool(tool);
  }
  redraw();
}
