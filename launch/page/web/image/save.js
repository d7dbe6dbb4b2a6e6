// What a panel shows, as a file: a picture made here, or numbers written by the server.

import { view } from "./view.js";

const MARGIN = 12;
const STRIP = 64; // height of the colour bar and its labels, CSS pixels

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The panel as it is seen, with its colour bar and what it is below.
function compose(panel) {
  const scale = devicePixelRatio;
  const { canvas: seen, figure, picture, map } = panel;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [seen.width, seen.height + STRIP * scale];
  const context = canvas.getContext("2d");
  context.fillStyle = "#0d1015";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const pointer = view.pointer;
  view.pointer = null; // the mark under the mouse is no part of the picture
  panel.drawOn(context);
  view.pointer = pointer;
  const text = (selector) => figure.querySelector(selector).textContent;
  const [left, right, y] = [MARGIN * scale, canvas.width - MARGIN * scale, seen.height + 10 * scale];
  context.font = `${12 * scale}px system-ui, "DejaVu Sans", sans-serif`;
  context.fillStyle = "#dbe2ea";
  context.textBaseline = "top";
  if (map.name !== "source") {
    context.drawImage(figure.querySelector("canvas.bar"), left, y, right - left, 10 * scale);
    context.fillText(text(".low"), left, y + 14 * scale);
    context.textAlign = "right";
    context.fillText(`${text(".high")} ${map.unit}`, right, y + 14 * scale);
    context.textAlign = "left";
  }
  const title = `${map.name.replaceAll("_", " ")}, scan ${picture.scan}, version ${picture.version}`;
  context.fillText(title, left, y + 34 * scale, right - left);
  return canvas;
}

export function savePng(panel) {
  if (!panel.hasImage) return;
  const { scan, version } = panel.picture;
  compose(panel).toBlob((blob) => download(blob, `${scan}-v${version}-${panel.map.name}.png`), "image/png");
}

// `kind` is tif, the map on the screen, or cxi, the whole image; returns why it could not be saved, "" if it was.
export async function saveData(panel, kind) {
  if (!panel.hasImage) return "there is no image yet";
  const { scan, version } = panel.picture;
  const file = kind === "tif" ? `${panel.map.name}.tif` : "image.cxi";
  const answer = await fetch(`file/${encodeURIComponent(scan)}/${version}/${file}${panel.isStored ? "?stored=1" : ""}`)
    .catch(() => null);
  if (!answer) return "The run has ended, and its server with it. PNG still works; the result is in the run's folder.";
  if (!answer.ok) return answer.text();
  // While the scan is running the file may be of a newer version than the screen; its name says which.
  const [, name] = answer.headers.get("Content-Disposition").match(/filename="(.*)"/);
  download(await answer.blob(), name);
  return "";
}
