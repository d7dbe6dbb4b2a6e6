// Mouse, pen and fingers on a panel: they move and zoom the shared view, or draw with its tool.

import { fit, moveBy, redraw, view, zoomBy } from "./view.js";

const DOUBLE_MS = 350;
const DOUBLE_PX = 30;
const CLICK_PX = 5;
const DOUBLE_ZOOM = 3;

export function listen(panel) {
  const { canvas } = panel;
  const fingers = new Map(); // pointer id -> its newest event
  let lastTap = null;
  let pressed = null;
  let drawn = null; // from where to where, with a tool

  const on = (type, react) => canvas.addEventListener(type, (event) => {
    if (!panel.hasImage) return;
    react(event);
    redraw();
  });

  function pinch(event) {
    const [one, other] = [...fingers.values()].map((finger) => ({ x: finger.offsetX, y: finger.offsetY }));
    fingers.set(event.pointerId, event);
    const [newOne, newOther] = [...fingers.values()].map((finger) => ({ x: finger.offsetX, y: finger.offsetY }));
    const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    const middle = (a, b) => panel.locate((a.x + b.x) / 2, (a.y + b.y) / 2);
    const before = middle(one, other);
    zoomBy(distance(newOne, newOther) / Math.max(distance(one, other), 1), before);
    const after = middle(newOne, newOther);
    moveBy(before.x - after.x, before.y - after.y);
  }

  function tap(event) {
    const now = { at: event.timeStamp, x: event.offsetX, y: event.offsetY };
    const isDouble = lastTap && now.at - lastTap.at < DOUBLE_MS
      && Math.hypot(now.x - lastTap.x, now.y - lastTap.y) < DOUBLE_PX;
    lastTap = isDouble ? null : now;
    if (!isDouble) return;
    if (view.zoom > 1) fit();
    else zoomBy(DOUBLE_ZOOM, panel.locate(now.x, now.y));
  }

  on("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), panel.locate(event.offsetX, event.offsetY));
  });
  on("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    pressed = { x: event.offsetX, y: event.offsetY, isClick: fingers.size === 1 };
    if (view.tool) drawn = [panel.locatePixel(event), panel.locatePixel(event)];
    view.pointer = panel.locate(event.offsetX, event.offsetY);
  });
  on("pointermove", (event) => {
    const at = panel.locate(event.offsetX, event.offsetY);
    if (pressed && Math.hypot(event.offsetX - pressed.x, event.offsetY - pressed.y) > CLICK_PX) pressed.isClick = false;
    if (fingers.size === 2 && !view.tool) return pinch(event);
    if (view.tool && drawn) {
      drawn[1] = panel.locatePixel(event);
      if (!pressed.isClick) view.tool.draw(drawn);
      view.pointer = at;
    } else if (fingers.size === 1 && view.pointer && view.zoom > 1) {
      moveBy(view.pointer.x - at.x, view.pointer.y - at.y);
      view.pointer = panel.locate(event.offsetX, event.offsetY);
    } else {
      view.pointer = at;
    }
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
    return undefined;
  });
  on("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (pressed?.isClick) tap(event);
    else if (view.tool && drawn) view.tool.done(drawn);
    drawn = null;
  });
  on("pointercancel", (event) => fingers.delete(event.pointerId));
  on("pointerleave", (event) => { if (event.pointerType === "mouse") view.pointer = null; });
}
