// What all panels show: which part of the image, and what is drawn over it. Places are parts of the image's
// width and height; `steering` is what the policy wants next and where, `rectangle` a region being drawn,
// and `line` the line of the profile, in absolute object pixels; `motors` says where those of `motors.scan`
// are for the motors.
// `tool` is what a drag draws with instead of moving the image: {name, draw(corners), done(corners)}.

export const view = {
  zoom: 1, x: 0.5, y: 0.5, pointer: null, showPath: true,
  picture: null, motors: null, steering: null, rectangle: null, line: null, tool: null,
};

const MOST_ZOOM = 64;
const panels = [];

export const share = (panel) => panels.push(panel);

export function redraw() {
  for (const panel of panels) panel.draw();
}

export function setTool(tool) {
  view.tool = tool;
  document.body.classList.toggle("draws", Boolean(tool));
  document.dispatchEvent(new Event("tool"));
}

export function fit() {
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  document.body.classList.remove("zoomed");
}

// Zooms by `factor` so that the place `at` stays where it is on the screen.
export function zoomBy(factor, at = view) {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MOST_ZOOM);
  const kept = view.zoom / zoom;
  Object.assign(view, { zoom, x: at.x + (view.x - at.x) * kept, y: at.y + (view.y - at.y) * kept });
  if (zoom === 1) fit();
  else keepInside();
  document.body.classList.toggle("zoomed", zoom > 1);
}

export function moveBy(x, y) {
  if (view.zoom === 1) return;
  view.x += x;
  view.y += y;
  keepInside();
}

function keepInside() {
  view.x = Math.min(Math.max(view.x, 0), 1);
  view.y = Math.min(Math.max(view.y, 0), 1);
}
