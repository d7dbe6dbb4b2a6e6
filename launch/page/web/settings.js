// What a person has chosen on this page, kept by the browser where it keeps anything.

const PREFIX = "ptychostream.";

export function remembered(name, otherwise = null) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise; // private windows and blocked storage: the page works without
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // as above
  }
}
