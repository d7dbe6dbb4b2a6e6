// What is drawn over an image: scan path, queued points, regions and the scale bar, each with a dark outline so
// that it is seen on any ground. `at` turns absolute object pixels (y, x) into canvas pixels [x, y].

import { length } from "../format.js";
import { view } from "./view.js";

const OUTLINE = "rgba(0, 0, 0, 0.75)";
const COLOURS = { path: "#7fe0f0", newest: "#ffb454", next: "#ffd27a", region: "#ff8f6b", profile: "#ffffff" };

function outlined(context, path, colour, width) {
  for (const [stroke, wide] of [[OUTLINE, width + 2], [colour, width]]) {
    context.strokeStyle = stroke;
    context.lineWidth = wide * devicePixelRatio;
    context.stroke(path);
  }
}

const CLEAR_PX = 10; // between the lines of a path, from which it hides little
const FAINTEST = 0.2;

// Marks grow with the zoom, so that they can be told apart where there is room for it.
const markSize = () => devicePixelRatio * Math.min(2 + Math.log2(view.zoom), 6);

export function drawPath(context, picture, at, isStored) {
  const { path } = picture;
  if (!path.length) return;
  const { origin_px: [top, left], binning } = picture;
  const place = (i) => at([top + path[i] * binning, left + path[i + 1] * binning]);
  // A steered scan goes here and there: its places say more than the way.
  if (view.steering && !isStored) drawDots(context, path, place);
  else drawLine(context, path, place);
  const newest = new Path2D();
  newest.arc(...place(path.length - 2), 3 * markSize(), 0, 2 * Math.PI);
  outlined(context, newest, COLOURS.newest, 2);
}

function drawLine(context, path, place) {
  const line = new Path2D();
  const places = Array.from({ length: path.length / 2 }, (_, i) => place(2 * i));
  let [left, top] = places[0], [right, bottom] = places[0], way = 0;
  places.forEach(([x, y], i) => {
    line.lineTo(x, y);
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    if (i) way += Math.hypot(x - places[i - 1][0], y - places[i - 1][1]);
  });
  const spacing = ((right - left) * (bottom - top)) / way / devicePixelRatio;
  context.save();
  context.globalAlpha = Math.min(Math.max(spacing / CLEAR_PX, FAINTEST) || 1, 1); // the image shows through
  context.lineJoin = "round";
  outlined(context, line, COLOURS.path, Math.min(1 + 0.25 * Math.log2(view.zoom), 2));
  context.restore();
}

function drawDots(context, path, place) {
  for (const [colour, size] of [[OUTLINE, 2 * devicePixelRatio + markSize()], [COLOURS.path, markSize()]]) {
    context.fillStyle = colour;
    for (let i = 0; i < path.length; i += 2) {
      const [x, y] = place(i);
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }
}

export function drawSteering(context, at) {
  const next = new Path2D();
  const radius = 1.75 * markSize();
  for (const point of view.steering.points_px) {
    const [x, y] = at(point);
    next.moveTo(x + radius, y);
    next.arc(x, y, radius, 0, 2 * Math.PI);
  }
  if (view.steering.plan === "running") outlined(context, next, COLOURS.next, 1.5);
  drawBox(context, at, view.steering.region_px, []);
  drawBox(context, at, view.rectangle, [6, 4]);
}

function drawBox(context, at, box, dash) {
  if (!box) return;
  const [[x0, y0], [x1, y1]] = box.map(at);
  const path = new Path2D();
  path.rect(x0, y0, x1 - x0, y1 - y0);
  context.setLineDash(dash.map((part) => part * devicePixelRatio));
  outlined(context, path, COLOURS.region, 2);
  context.setLineDash([]);
}

export function drawProfileLine(context, at) {
  const [[x0, y0], [x1, y1]] = view.line.map(at);
  const path = new Path2D();
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
  outlined(context, path, COLOURS.profile, 2);
  const start = new Path2D(); // where the profile begins, at its left
  start.arc(x0, y0, 4 * devicePixelRatio, 0, 2 * Math.PI);
  outlined(context, start, COLOURS.profile, 2);
}

// `scale` is canvas pixels per drawn pixel, `covered` how much of the canvas is covered from below, CSS pixels.
export function drawScaleBar(context, picture, scale, canvas, covered = 0) {
  const metresPerPixel = picture.pixel_m / scale;
  const longest = 0.22 * canvas.width * metresPerPixel;
  const power = 10 ** Math.floor(Math.log10(longest));
  const metres = power * [5, 2, 1].find((step) => step * power <= longest);
  const [unit, label] = [devicePixelRatio, length(metres)];
  const [width, x, y] = [metres / metresPerPixel, 16 * unit, canvas.height - (18 + covered) * unit];
  const outline = 2 * unit;
  context.font = `600 ${14 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  context.lineJoin = "round";
  context.strokeStyle = OUTLINE;
  context.lineWidth = 2 * outline;
  context.strokeText(label, x, y - 6 * unit);
  context.fillStyle = OUTLINE;
  context.fillRect(x - outline, y - outline, width + 2 * outline, 4 * unit + 2 * outline);
  context.fillStyle = "#ffffff";
  context.fillRect(x, y, width, 4 * unit);
  context.fillText(label, x, y - 6 * unit);
}
