// The page's half of the conversation: ask, draw what comes, ask again when it is drawn.

import { isLoaded, load as loadColours } from "./image/colourmaps.js";
import { area, length } from "./format.js";
import { explain } from "./hints.js";
import { listen as listenToKeys } from "./image/keys.js";
import { Panel } from "./image/panel.js";
import { onPicture, takeLive } from "./image/pictures.js";
import { remember, remembered } from "./settings.js";
import { put, say, showState } from "./state.js";
import { listen, showSteering } from "./steering.js";
import { start as startTabs } from "./data/tabs.js";
import { redraw, view } from "./image/view.js";

const SILENCE_MS = 3000; // the viewer answers four times a second
const RETRY_MS = 1000;

const byId = (id) => document.getElementById(id);
const panels = [...document.querySelectorAll(".panel")].map((figure) => new Panel(figure, byId("panel")));

let socket = null;
let heardAt = performance.now();
let latest = null; // state

onPicture((picture, isStored) => {
  if (!picture) return;
  view.picture = picture;
  for (const panel of panels) panel.show(picture, isStored);
  const [height, width] = picture.shape;
  put(byId("pixel"), length(picture.pixel_m / picture.binning));
  put(byId("field"), area(width * picture.pixel_m, height * picture.pixel_m));
  document.body.dataset.version = picture.version;
});

function take(state) {
  latest = state;
  view.motors = state.motors ? { ...state.motors, scan: state.scan } : null;
  showState(state);
  showSteering(state.steering, redraw);
  document.dispatchEvent(new CustomEvent("state", { detail: state }));
}

// The maps on the panels, and under the pointer the error beside the value.
function ask(own) {
  const names = new Set(panels.map((panel) => panel.wanted));
  if (view.pointer) names.add("sigma");
  own.send([...names].join(","));
}

function connect() {
  heardAt = performance.now();
  const url = new URL("live", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws"); // wss behind a proxy that has TLS
  const own = new WebSocket(url);
  socket = own;
  own.binaryType = "arraybuffer";
  own.onopen = async () => {
    if (!isLoaded()) await loadColours().catch(() => own.close());
    if (own.readyState === WebSocket.OPEN) ask(own);
  };
  own.onmessage = ({ data }) => {
    heardAt = performance.now();
    if (typeof data !== "string") {
      takeLive(data);
      return;
    }
    take(JSON.parse(data));
    // Not before this is on the screen: a slow browser skips pictures instead of falling behind.
    requestAnimationFrame(() => { if (own.readyState === WebSocket.OPEN) ask(own); });
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
    if (latest?.is_final) say(latest.level, `${latest.text} – the run has ended`);
    else say("stale", `stale: the viewer at ${location.host} does not answer, trying again`);
  }
  if (silentMs > 2 * SILENCE_MS) {
    const stuck = socket;
    connect();
    stuck.close();
  }
}

byId("show-path").checked = view.showPath = remembered("path", true);
byId("show-path").addEventListener("change", (event) => {
  view.showPath = event.target.checked;
  remember("path", view.showPath);
  redraw();
});
listen(redraw);
listenToKeys(panels);
explain(document);
startTabs();
connect();
setInterval(checkSilence, 500);
