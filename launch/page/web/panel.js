// One image with its choice of maps, colour bar, scale bar, scan path and readout under the pointer.

import { coloursOf } from "/web/colours.js";

const digits = (value, n = 3) => Number(value.toPrecision(n)).toString().replace("-", "−");

export function length(metres) {
  const [unit, factor] = metres < 0.9995e-6 ? ["nm", 1e9] : metres < 0.9995e-3 ? ["µm", 1e6] : ["mm", 1e3];
  return `${digits(metres * factor)} ${unit}`;
}

// What all panels show: which part of the image, and where the pointer is; in parts of the image's size.
// `steering` is what the policy wants next and where, `rectangle` what is being drawn as a region of interest.
export const view = {
  zoom: 1, x: 0.5, y: 0.5, pointer: null, showPath: true,
  steering: null, drawing: false, rectangle: null, onRectangle: () => {},
};

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
    if (view.steering) this.drawSteering(context, scale, left, top);
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
    // A steered scan goes here and there: its places say more than the way.
    if (view.steering) this.drawDots(context, path, scale, left, top);
    else context.stroke(line);
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

  drawDots(context, path, scale, left, top) {
    for (const [colour, sizePx] of [["rgba(9, 11, 15, 0.6)", 4], ["#6ec8d7", 2]]) {
      const size = sizePx * devicePixelRatio;
      context.fillStyle = colour;
      for (let i = 0; i < path.length; i += 2) {
        context.fillRect(left + path[i + 1] * scale - size / 2, top + path[i] * scale - size / 2, size, size);
      }
    }
  }

  // Points and boxes of the policy are absolute object pixels (y, x).
  drawSteering(context, scale, left, top) {
    const { origin_px: [top0, left0], binning } = this.picture;
    const at = ([y, x]) => [left + ((x - left0) / binning) * scale, top + ((y - top0) / binning) * scale];
    const next = new Path2D();
    for (const point of view.steering.points_px) {
      const [x, y] = at(point);
      next.moveTo(x + 3.5 * devicePixelRatio, y);
      next.arc(x, y, 3.5 * devicePixelRatio, 0, 2 * Math.PI);
    }
    for (const [colour, width] of [["rgba(0, 0, 0, 0.7)", 3], ["#ffd27a", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * devicePixelRatio;
      if (view.steering.plan === "running") context.stroke(next);
    }
    this.drawBox(context, at, view.steering.region_px, "#ff8f6b", []);
    this.drawBox(context, at, view.rectangle, "#ff8f6b", [6, 4]);
  }

  drawBox(context, at, box, colour, dash) {
    if (!box) return;
    const [[x0, y0], [x1, y1]] = box.map(at);
    context.setLineDash(dash.map((part) => part * devicePixelRatio));
    for (const [stroke, width] of [["rgba(0, 0, 0, 0.7)", 4], [colour, 2]]) {
      context.strokeStyle = stroke;
      context.lineWidth = width * devicePixelRatio;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
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

  // The same in absolute object pixels (y, x).
  locatePixel(event) {
    const { x, y } = this.locate(event);
    const { origin_px: [top0, left0], binning, shape: [height, width] } = this.picture;
    return [top0 + y * height * binning, left0 + x * width * binning];
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
    on("pointerdown", (event) => {
      if (!view.drawing) return;
      this.canvas.setPointerCapture(event.pointerId);
      view.rectangle = [this.locatePixel(event), this.locatePixel(event)];
    });
    on("pointerup", () => { if (view.drawing && view.rectangle) view.onRectangle(view.rectangle); });
    on("pointermove", (event) => {
      const at = this.locate(event);
      if (view.drawing) {
        if (view.rectangle) view.rectangle[1] = this.locatePixel(event);
        view.pointer = at;
      } else if (event.buttons && view.pointer && view.zoom > 1) {
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
