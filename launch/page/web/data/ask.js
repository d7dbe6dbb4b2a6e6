// Questions to the server beside the live image: about scans on its disk and earlier versions of the image.
// They are asked only while somebody looks at the answer.

let stored = null;

// The scan that the tabs tell of: the one opened from the list, else the newest.
export const shownScan = () => stored ?? "newest";

export function openScan(name) {
  stored = name;
  document.dispatchEvent(new Event("scan"));
}

document.addEventListener("live", () => openScan(null));

async function ask(path) {
  const answer = await fetch(path).catch(() => { throw new Error("the viewer does not answer"); });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

export const askJson = async (path) => (await ask(path)).json();

export const askPacket = async (path) => (await ask(path)).arrayBuffer();

// The packet described in launch/page/packet.py: facts, and `arrays` by name as {shape, values}; null where
// the server has nothing new.
export async function askArrays(path) {
  const answer = await ask(path);
  if (answer.status === 204) return null;
  const buffer = await answer.arrayBuffer();
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headerBytes)));
  let offset = 4 + headerBytes;
  facts.arrays = Object.fromEntries(facts.arrays.map(({ name, shape }) => {
    const values = new Float32Array(buffer, offset, shape.reduce((product, length) => product * length, 1));
    offset += values.byteLength;
    return [name, { shape, values }];
  }));
  return facts;
}

// Calls `look` again and again while `section` is shown, `pauseMs` after it has ended; and at once when another
// scan is chosen. What goes wrong, `fail` is told in words.
export function whileShown(section, pauseMs, fail, look) {
  let [isShown, isLooking, timer] = [false, false, 0];

  async function turn() {
    clearTimeout(timer);
    if (isLooking || !isShown) return;
    isLooking = true;
    try {
      if (!document.hidden) await look();
    } catch (error) {
      fail(error.message);
    }
    isLooking = false;
    if (isShown) timer = setTimeout(turn, pauseMs);
  }

  section.addEventListener("shown", () => { isShown = true; turn(); });
  section.addEventListener("hidden", () => { isShown = false; });
  document.addEventListener("scan", turn);
  return turn;
}
