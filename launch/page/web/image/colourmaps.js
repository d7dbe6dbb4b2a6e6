// Colour tables, as the server has them for everything that is drawn, and levels to colours.

let tables = null; // name -> [red, green, blue, red, ...]
let ofMap = null; // map of a picture -> name of its table

export async function load() {
  ({ tables, of: ofMap } = await (await fetch("colours")).json());
}

export const isLoaded = () => tables !== null;

export const names = () => Object.keys(tables).filter((name) => name !== "source");

// The table that a map is drawn with unless a person chose another.
export function usual(map, isCircle) {
  const name = map.name === "phase_with_ramp" ? "phase" : map.name;
  return ofMap[isCircle ? "wrapped phase" : name];
}

const colourAt = (table, i) => (0xff000000 | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i]) >>> 0;

// A colour (RGBA in the order of the computer's memory) for each of `n` values from `low` to `high` of a map
// whose range is `from` to `to`: beyond its ends the last colour stays.
function spread(name, n, low, high, from, to) {
  const table = tables[name];
  const nColours = table.length / 3;
  const colours = new Uint32Array(n);
  for (let i = 0; i < n; i++) {
    const value = low + ((high - low) * i) / (n - 1);
    const t = Math.floor(((value - from) / (to - from)) * nColours);
    colours[i] = colourAt(table, Math.min(Math.max(t, 0), nColours - 1));
  }
  return colours;
}

// Colours of levels 0..65535 of a map; level 0 is an unknown pixel and stays transparent.
export function ofLevels(map, name, [from, to]) {
  const colours = new Uint32Array(65536);
  colours.set(spread(name, 65535, map.low, map.high, from, to), 1);
  return colours;
}

// Colours of where each place comes from: 1 the network, 2 refinement.
export const ofSource = () => new Uint32Array([0, colourAt(tables.source, 1), colourAt(tables.source, 2)]);

export const ofBar = (name, n) => spread(name, n, 0, 1, 0, 1);

// The value that a level of a map stands for.
export const valueOf = (map, level) => map.low + ((level - 1) / 65534) * (map.high - map.low);
