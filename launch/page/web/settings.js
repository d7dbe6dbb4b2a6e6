// What a person has chosen on this page; the browser keeps it where it keeps anything.

const PREFIX = "ptychostream.";
const chosen = new Map(); // private windows and blocked storage: the page works without, until it is closed

export function remembered(name, otherwise = null) {
  if (chosen.has(name)) return chosen.get(name);
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  chosen.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // as above
  }
}
