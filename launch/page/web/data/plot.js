// A plot of lines on a canvas: axes with labels and units, ticks at round numbers, and what lies under the pointer.

import { digits } from "../format.js";

const MARGIN = { left: 74, right: 14, top: 8, bottom: 36 };
const LINE = "#3a4654";
const TEXT = "#c3cdd8";
const FONT = '12px system-ui, "DejaVu Sans", sans-serif';

function roundStep(span, n) {
  const power = 10 ** Math.floor(Math.log10(span / n));
  return power * [1, 2, 5, 10].find((step) => span / (step * power) <= n);
}

function ticks({ low, high, isLog }, n) {
  const found = [];
  if (!isLog || high / low < 4) {
    const step = roundStep(high - low, n);
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
    return found;
  }
  const decades = Math.log10(high / low);
  const steps = decades > 3 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    found.push(...steps.map((step) => step * 10 ** power).filter((value) => value >= low && value <= high));
  }
  return found;
}

// `axes` is {x, y}, each {label, low, high, isLog}; `lines` are {x, y, colour, dash, width}, a null is a gap.
export class Plot {
  constructor(canvas, read) {
    this.canvas = canvas;
    this.read = read; // (x value or null) => nothing: says what is there
    this.axes = null;
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerdown", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(axes, lines) {
    Object.assign(this, { axes, lines });
    this.draw();
  }

  place({ low, high, isLog }, value, from, to) {
    const part = isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return from + part * (to - from);
  }

  point(offsetX) {
    if (!this.axes || !this.read) return;
    const { low, high, isLog } = this.axes.x;
    const part = (offsetX - MARGIN.left) / (this.canvas.clientWidth - MARGIN.left - MARGIN.right);
    if (offsetX === null || part < 0 || part > 1) this.read(null);
    else this.read(isLog ? low * (high / low) ** part : low + part * (high - low));
  }

  draw() {
    const { canvas, axes } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!axes || !width || !height) return;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.font = FONT;
    const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
    this.drawAxes(context, left, right, top, bottom);
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    for (const line of this.lines) this.drawLine(context, line, left, right, top, bottom);
    context.restore();
  }

  drawAxes(context, left, right, top, bottom) {
    const { x, y } = this.axes;
    context.fillStyle = TEXT;
    context.strokeStyle = LINE;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const value of ticks(x, Math.max(2, (right - left) / 80))) {
      const at = this.place(x, value, left, right);
      this.stroke(context, at, top, at, bottom);
      context.fillText(digits(value), at, bottom + 4);
    }
    context.fillText(x.label, (left + right) / 2, bottom + 20);
    context.textAlign = "right";
    context.textBaseline = "middle";
    let free = bottom + 20;
    for (const value of ticks(y, Math.max(2, (bottom - top) / 28))) {
      const at = this.place(y, value, bottom, top);
      this.stroke(context, left, at, right, at);
      if (free - at < 13) continue;
      context.fillText(digits(value), left - 5, at);
      free = at;
    }
    this.nameY(context, y.label, right, top, bottom);
    context.strokeRect(left, top, right - left, bottom - top);
  }

  // Along the axis where there is room for it, else in the corner that falling curves leave free.
  nameY(context, label, right, top, bottom) {
    context.save();
    if (context.measureText(label).width < bottom - top) {
      context.translate(11, (top + bottom) / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText(label, 0, 0);
    } else {
      context.textAlign = "right";
      context.fillText(label, right - 5, top + 9);
    }
    context.restore();
  }

  stroke(context, x0, y0, x1, y1) {
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  drawLine(context, { x, y, colour, dash = [], width = 1.5 }, left, right, top, bottom) {
    context.beginPath();
    let isGap = true;
    x.forEach((value, i) => {
      if (y[i] === null || (this.axes.y.isLog && y[i] <= 0)) {
        isGap = true;
        return;
      }
      const at = [this.place(this.axes.x, value, left, right), this.place(this.axes.y, y[i], bottom, top)];
      if (isGap) context.moveTo(...at);
      else context.lineTo(...at);
      isGap = false;
    });
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.stroke();
    context.setLineDash([]);
    context.lineWidth = 1;
  }
}
