// The page's half of the conversation: ask, draw what comes, ask again when it is drawn.

import { Panel, length, view } from "/web/panel.js";
import { listen, showSteering } from "/web/steering.js";

const SILENCE_MS = 3000; // the viewer answers four times a second
const RETRY_MS = 1000;

const byId = (id) => document.getElementById(id);
const template = byId("panel");
const panels = [...document.querySelectorAll(".panel")].map((figure) => new Panel(figure, template, redraw));

let socket = null;
let heardAt = performance.now();
let latest = null; // state

const percent = (share) => `${Math.round(100 * share)} %`;

function redraw() {
  for (const panel of panels) panel.draw();
}

// The packet described in launch/page/picture.py.
function decode(buffer) {
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const picture = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerBytes)));
  let offset = 4 + headerBytes;
  picture.path = new Float32Array(buffer, offset, 2 * picture.n_path);
  offset += picture.path.byteLength;
  const nPixels = picture.shape[0] * picture.shape[1];
  picture.maps = Object.fromEntries(picture.maps.map((map) => {
    map.levels = new Uint8Array(buffer, offset, nPixels);
    offset += nPixels;
    return [map.name, map];
  }));
  return picture;
}

function showPicture(picture) {
  for (const panel of panels) panel.show(picture);
  const [height, width] = picture.shape;
  byId("pixel").textContent = length(picture.pixel_m / picture.binning);
  byId("field").textContent = `${length(width * picture.pixel_m)} × ${length(height * picture.pixel_m)}`;
  document.body.dataset.version = picture.version;
}

function say(level, text) {
  document.body.dataset.level = level;
  byId("status").textContent = text;
}

function showState(state) {
  latest = state;
  say(state.level, state.text);
  const { counts, rates } = state;
  const expected = counts.expected ?? counts.recorded ?? 0;
  for (const row of document.querySelectorAll("tr[data-count]")) {
    const count = counts[row.dataset.count];
    row.classList.toggle("absent", count === undefined);
    row.querySelector("i").style.width = `${expected ? Math.min((100 * (count ?? 0)) / expected, 100) : 0}%`;
    row.querySelector(".n").textContent = count?.toLocaleString("en") ?? "–";
    const rate = rates[row.dataset.count];
    row.querySelector(".rate").textContent = rate === undefined ? "" : `${Math.round(rate).toLocaleString("en")} /s`;
  }
  for (const name of ["lost", "no_position", "pending"]) {
    const field = byId(name);
    field.textContent = counts[name]?.toLocaleString("en") ?? "–";
    field.classList.toggle("bad", counts[name] > 0 && (name !== "pending" || Boolean(state.is_final)));
  }
  if (state.scan !== undefined) showFigures(state);
  showSteering(state.steering, redraw);
}

function showFigures(state) {
  const [p50, p99] = state.time_to_image_ms ?? [null, null];
  const texts = {
    scan: state.scan,
    version: state.version,
    run_id: state.run_id,
    model: state.model || "none",
    config_hash: state.config_hash,
    p50: p50 === null ? "–" : p50.toFixed(0),
    p99: p99 === null ? "–" : p99.toFixed(0),
    epoch: state.epoch.toFixed(1),
    error: state.error === null ? "–" : state.error.toPrecision(3),
    models: Object.entries(state.models).map(([model, n]) => `${model} ${n}`).join(", ") || "–",
    coverage: state.coverage68 === null ? "–" : `${percent(state.coverage68)} / ${percent(state.coverage95)}`,
    factor: state.sigma_factor.toPrecision(2),
    alarm: state.alarm,
  };
  byId("alarm").hidden = !state.alarm;
  for (const [id, text] of Object.entries(texts)) {
    byId(id).textContent = text;
    byId(id).title = text;
  }
  const { expected, recorded } = state.counts;
  const done = expected ? `${Math.floor((100 * recorded) / expected)} % ` : "";
  document.title = `${done}${state.scan} – ptychostream`;
}

function connect() {
  heardAt = performance.now();
  const own = new WebSocket(`ws://${location.host}/live`);
  socket = own;
  own.binaryType = "arraybuffer";
  own.onopen = () => own.send("next");
  own.onmessage = ({ data }) => {
    heardAt = performance.now();
    if (typeof data !== "string") {
      showPicture(decode(data));
      return;
    }
    showState(JSON.parse(data));
    // Not before this is on the screen: a slow browser skips pictures instead of falling behind.
    requestAnimationFrame(() => { if (own.readyState === WebSocket.OPEN) own.send("next"); });
  };
  own.onclose = () => { if (socket === own) setTimeout(connect, RETRY_MS); };
}

function checkSilence() {
  if (document.hidden) {
    heardAt = performance.now(); // a hidden page draws nothing, so it asks for nothing
    return;
  }
  const silentMs = performance.now() - heardAt;
  if (socket.readyState !== WebSocket.OPEN || silentMs > SILENCE_MS) {
    if (latest?.is_final) say(latest.level, `${latest.text} – the viewer has left`);
    else say("stale", `stale: the viewer at ${location.host} does not answer, trying again`);
  }
  if (silentMs > 2 * SILENCE_MS) {
    const stuck = socket;
    connect();
    stuck.close();
  }
}

byId("show-path").addEventListener("change", (event) => {
  view.showPath = event.target.checked;
  redraw();
});
byId("reset").addEventListener("click", () => {
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  redraw();
});
listen(redraw);
connect();
setInterval(checkSilence, 500);
