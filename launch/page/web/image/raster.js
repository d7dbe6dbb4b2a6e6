// Small images of numbers: probe modes, diffraction patterns, thumbnails.

import { ofBar } from "./colourmaps.js";
import { drawScaleBar } from "./overlay.js";

const MASKED = 0xff302a4a; // a colour that no table has

// Draws (row, column) values; `part` says for each value which part of the colour table it has, 0..1, NaN for
// none. `pixel_m`, where given, makes a scale bar.
export function drawRaster(canvas, [height, width], part, table, { pixel_m: pixelM, unknown = MASKED } = {}) {
  if (!canvas.clientWidth || !canvas.clientHeight) return; // it is hidden
  const small = document.createElement("canvas");
  small.width = width;
  small.height = height;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = ofBar(table, 256);
  for (let i = 0; i < pixels.length; i++) {
    const t = part(i);
    pixels[i] = Number.isNaN(t) ? unknown : colours[Math.round(255 * Math.min(Math.max(t, 0), 1))];
  }
  small.getContext("2d").putImageData(image, 0, 0);
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const [left, top] = [(canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2];
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left, top, width * scale, height * scale);
  if (pixelM) drawScaleBar(context, { pixel_m: pixelM }, scale, canvas);
}

export function drawBar(canvas, table) {
  canvas.width = 256;
  canvas.height = 1;
  const image = new ImageData(256, 1);
  new Uint32Array(image.data.buffer).set(ofBar(table, 256));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function largest(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}
