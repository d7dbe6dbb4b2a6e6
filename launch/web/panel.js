// One image with its choice of maps, colour bar, scale bar, scan path and readout under the pointer.

import { coloursOf } from "/web/colours.js";

const digits = (value, n = 3) => Number(value.toPrecision(n)).toString().replace("-", "−");

export function length(metres) {
  const [unit, factor] = metres < 0.9995e-6 ? ["nm", 1e9] : metres < 0.9995e-3 ? ["µm", 1e6] : ["mm", 1e3];
  return `${digits(metres * factor)} ${unit}`;
}

// What all panels show: which part of the image, and where the pointer is; in parts of the image's size.
export const view = { zoom: 1, x: 0.5, y: 0.5, pointer: null, showPath: true };

export class Panel {
  constructor(figure, template, redrawAll) {
    figure.append(template.content.cloneNode(true));
    this.figure = figure;
    this.redrawAll = redrawAll;
    this.canvas = figure.querySelector(".image");
    this.drawn = document.createElement("canvas");
    this.picture = null;
    for (const button of figure.querySelectorAll("nav button")) {
      button.addEventListener("click", () => this.choose(button.dataset.map));
    }
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.listen();
    this.choose(figure.dataset.map);
  }

  choose(name) {
    this.figure.dataset.map = name;
    for (const button of this.figure.querySelectorAll("nav button")) {
      button.setAttribute("aria-pressed", button.dataset.map === name);
    }
    this.colour();
    this.draw();
  }

  show(picture) {
    this.picture = picture;
    this.colour();
    this.draw();
  }

  get map() {
    return this.picture?.maps[this.figure.dataset.map];
  }

  // Levels to colours, once per picture; drawing then only scales.
  colour() {
    const map = this.map;
    if (!map || !map.levels.length) return;
    const [height, width] = this.picture.shape;
    this.drawn.width = width;
    this.drawn.height = height;
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = new Uint32Array(coloursOf(map).buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[map.levels[i]];
    this.drawn.getContext("2d").putImageData(image, 0, 0);
    this.colourBar(map);
  }

  colourBar(map) {
    const bar = new ImageData(254, 1);
    bar.data.set(coloursOf(map).subarray(4, 4 + 4 * 254));
    this.figure.querySelector("canvas.bar").getContext("2d").putImageData(bar, 0, 0);
    const label = (value) => (map.is_cyclic ? (value < 0 ? "−π" : "π") : digits(value));
    this.figure.querySelector(".low").textContent = label(map.low);
    this.figure.querySelector(".high").textContent = label(map.high);
    this.figure.querySelector(".unit").textContent = map.unit;
  }

  // Where the image lies on the canvas: corner and size of a drawn pixel, in device pixels.
  placement() {
    const [height, width] = this.picture.shape;
    const margin = 8 * devicePixelRatio;
    const fit = Math.min((this.canvas.width - margin) / width, (this.canvas.height - margin) / height);
    const scale = fit * view.zoom;
    return {
      scale,
      left: this.canvas.width / 2 - view.x * width * scale,
      top: this.canvas.height / 2 - view.y * height * scale,
    };
  }

  draw() {
    this.canvas.width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    if (!this.map?.levels.length) return;
    const context = this.canvas.getContext("2d");
    const { scale, left, top } = this.placement();
    context.imageSmoothingEnabled = scale < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.drawn, left, top, this.drawn.width * scale, this.drawn.height * scale);
    if (view.showPath) this.drawPath(context, scale, left, top);
    this.drawScaleBar(context, scale);
    this.readOut(context, scale, left, top);
  }

  drawPath(context, scale, left, top) {
    const { path } = this.picture;
    if (!path.length) return;
    const line = new Path2D();
    for (let i = 0; i < path.length; i += 2) line.lineTo(left + path[i + 1] * scale, top + path[i] * scale);
    context.lineWidth = devicePixelRatio;
    context.strokeStyle = "rgba(110, 200, 215, 0.4)";
    context.stroke(line);
    const [y, x] = path.slice(-2);
    const newest = new Path2D();
    newest.arc(left + x * scale, top + y * scale, 6 * devicePixelRatio, 0, 2 * Math.PI);
    context.lineWidth = 4 * devicePixelRatio;
    context.strokeStyle = "rgba(0, 0, 0, 0.6)";
    context.stroke(newest);
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = "#ffb454";
    context.stroke(newest);
  }

  drawScaleBar(context, scale) {
    const metresPerPixel = this.picture.pixel_m / scale;
    const longest = 0.22 * this.canvas.width * metresPerPixel;
    const power = 10 ** Math.floor(Math.log10(longest));
    const metres = power * [5, 2, 1].find((step) => step * power <= longest);
    const [unit, label] = [devicePixelRatio, length(metres)];
    const [width, x, y] = [metres / metresPerPixel, 16 * unit, this.canvas.height - 18 * unit];
    context.font = `600 ${13 * unit}px system-ui, "DejaVu Sans", sans-serif`;
    const plate = new Path2D();
    const plateWidth = Math.max(width, context.measureText(label).width) + 16 * unit;
    plate.roundRect(x - 8 * unit, y - 22 * unit, plateWidth, 32 * unit, 4 * unit);
    context.fillStyle = "rgba(9, 11, 15, 0.78)";
    context.fill(plate);
    context.fillStyle = "#f2f5f8";
    context.fillRect(x, y, width, 3 * unit);
    context.fillText(label, x, y - 6 * unit);
  }

  readOut(context, scale, left, top) {
    const output = this.figure.querySelector("output");
    const [height, width] = this.picture.shape;
    const row = Math.floor(view.pointer?.y * height);
    const column = Math.floor(view.pointer?.x * width);
    if (!(row >= 0 && row < height && column >= 0 && column < width)) {
      output.textContent = "";
      return;
    }
    const [x, y] = [left + (column + 0.5) * scale, top + (row + 0.5) * scale];
    context.strokeStyle = "rgba(255, 255, 255, 0.35)";
    context.lineWidth = 1;
    context.strokeRect(x - 9, y - 9, 18, 18);
    const where = `x ${length(column * this.picture.pixel_m)}  y ${length(row * this.picture.pixel_m)}`;
    output.textContent = `${where}   ${this.valueAt(row * width + column)}`;
  }

  valueAt(index) {
    const { name, unit, low, high, levels } = this.map;
    const level = levels[index];
    if (!level) return "unknown";
    if (name === "source") return level === 2 ? "refined" : "network";
    return `${digits(low + ((level - 1) / 254) * (high - low))} ${unit}`;
  }

  // Pointer position in parts of the image's size.
  locate(event) {
    const { scale, left, top } = this.placement();
    const [height, width] = this.picture.shape;
    return {
      x: (event.offsetX * devicePixelRatio - left) / (width * scale),
      y: (event.offsetY * devicePixelRatio - top) / (height * scale),
    };
  }

  listen() {
    const on = (type, react) => this.canvas.addEventListener(type, (event) => {
      if (!this.map?.levels.length) return;
      react(event);
      this.redrawAll();
    });
    on("wheel", (event) => {
      event.preventDefault();
      const at = this.locate(event);
      const zoom = Math.min(Math.max(view.zoom * Math.exp(-event.deltaY / 400), 1), 64);
      const kept = view.zoom / zoom;
      Object.assign(view, { zoom, x: at.x + (view.x - at.x) * kept, y: at.y + (view.y - at.y) * kept });
      if (zoom === 1) Object.assign(view, { x: 0.5, y: 0.5 });
    });
    on("pointermove", (event) => {
      const at = this.locate(event);
      if (event.buttons && view.pointer && view.zoom > 1) {
        view.x += view.pointer.x - at.x;
        view.y += view.pointer.y - at.y;
        view.pointer = this.locate(event);
      } else {
        view.pointer = at;
      }
    });
    on("pointerleave", () => { view.pointer = null; });
    on("dblclick", () => Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 }));
  }
}
