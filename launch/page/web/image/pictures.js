// Which picture is on the panels: the live one, or a stored one that somebody wants to see.

const listeners = [];
let live = null;
let stored = null;

const bar = document.getElementById("stored");

// The packet described in launch/page/picture.py.
export function decode(buffer) {
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const picture = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerBytes)));
  let offset = 4 + headerBytes;
  picture.path = new Float32Array(buffer, offset, 2 * picture.n_path);
  offset += picture.path.byteLength;
  const nPixels = picture.shape[0] * picture.shape[1];
  picture.maps = Object.fromEntries(picture.maps.map((map) => {
    map.levels = new Uint16Array(buffer, offset, nPixels);
    offset += map.levels.byteLength;
    return [map.name, map];
  }));
  return picture;
}

function tell() {
  bar.hidden = !stored;
  document.body.classList.toggle("shows-stored", Boolean(stored));
  for (const listener of listeners) listener(stored ?? live, Boolean(stored));
}

// Calls `listener(picture, isStored)` for each picture that goes on the panels.
export const onPicture = (listener) => listeners.push(listener);

// Puts a stored picture packet (ArrayBuffer) on the panels until `goLive`; `label` says what it is.
export function show(packet, label) {
  stored = decode(packet);
  stored.label = label;
  bar.querySelector("span").textContent = label;
  bar.querySelector("span").title = label;
  tell();
}

export function goLive() {
  stored = null;
  document.dispatchEvent(new Event("live")); // for who had put a stored picture there
  tell();
}

export function takeLive(packet) {
  live = decode(packet);
  if (!stored) tell();
}

bar.querySelector("button").addEventListener("click", goLive);
