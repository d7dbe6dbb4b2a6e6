// What the page says beside the images, from the state that the server sends: header, stages, figures, events.

import { clock, count, percent } from "./format.js";

const byId = (id) => document.getElementById(id);

// A text that may be too long for its place is whole in its tooltip.
export function put(element, text) {
  if (element.textContent === text) return;
  element.textContent = text;
  element.title = text;
}

export function say(level, text) {
  document.body.dataset.level = level;
  put(byId("status"), text);
}

export function showState(state) {
  say(state.level, state.text);
  showCounts(state);
  showRows(byId("stages"), state.stages ?? []);
  showRows(byId("before"), state.before ?? []);
  showEvents(state.events ?? []);
  if (state.scan !== undefined) showFigures(state);
}

// All that is expected is in the image or in one of these fields: the words of `stream.record.account.shares`.
const SHARES = { awaited: "to come", pending: "pending", left_out: "left out", no_position: "without position", settling: "settling", lost: "lost" };

function showCounts({ counts, shares = {}, rates, is_final: isFinal }) {
  const expected = counts.expected ?? counts.recorded;
  for (const row of document.querySelectorAll("tr[data-count]")) {
    const n = counts[row.dataset.count];
    row.classList.toggle("absent", n === undefined);
    row.querySelector("i").style.width = `${expected ? Math.min((100 * (n ?? 0)) / expected, 100) : 0}%`;
    row.querySelector(".n").textContent = count(n);
    const rate = rates[row.dataset.count];
    row.querySelector(".rate").textContent = rate === undefined || isFinal ? "" : `${count(Math.round(rate))} /s`;
  }
  for (const [name, words] of Object.entries(SHARES)) {
    const field = byId(name);
    put(field, count(shares[words]));
    const isWaitedFor = name === "settling" || (!isFinal && ["awaited", "pending"].includes(name));
    field.classList.toggle("bad", shares[words] > 0 && !isWaitedFor);
  }
  put(byId("deferred"), count(shares.pending ? counts.deferred : 0));
  for (const [name, n] of [["settling", shares.settling], ["deferred", shares.pending && counts.deferred], ["left_out", shares["left out"]]]) {
    byId(name).hidden = byId(name).previousElementSibling.hidden = !n; // most scans have none
  }
}

function showFigures(state) {
  const [p50, p99] = state.time_to_image_ms ?? [null, null];
  const texts = {
    scan: state.scan,
    version: String(state.version),
    run_id: state.run_id,
    model: state.model || "none",
    config_hash: state.config_hash,
    p50: p50 === null ? "–" : p50.toFixed(0),
    p99: p99 === null ? "–" : p99.toFixed(0),
    epoch: state.epoch.toFixed(1),
    error: state.error === null ? "–" : state.error.toPrecision(3),
    models: Object.entries(state.models).map(([model, n]) => `${model} ${count(n)}`).join(", ") || "–",
    coverage: state.coverage68 === null ? "–" : `${Math.round(100 * state.coverage68)} / ${percent(state.coverage95)}`,
    factor: state.sigma_factor.toPrecision(2),
    alarm: state.alarm,
  };
  byId("alarm").hidden = !state.alarm;
  for (const [id, text] of Object.entries(texts)) put(byId(id), text);
  const { expected, recorded } = state.counts;
  const done = expected ? `${Math.floor((100 * recorded) / expected)} % ` : "";
  document.title = `${done}${state.scan} – ptychostream`;
}

// `rows` is [{name, text, level}], level one of ok, busy, warning, error, done.
function showRows(list, rows) {
  list.hidden = !rows.length;
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(({ name, text, level }, i) => {
    const item = list.children[i] ?? list.appendChild(document.createElement("li"));
    if (!item.firstChild) item.append(document.createElement("b"), document.createElement("span"));
    item.dataset.level = level;
    item.title = `${name}: ${text}`;
    item.firstChild.textContent = name;
    item.lastChild.textContent = text;
  });
}

// `events` is [{time_s, level, source, text}], the newest last; the page has it first.
function showEvents(events) {
  const panel = byId("events");
  const key = `${events.length} ${events.at(-1)?.time_s}`;
  const badge = byId("n-events");
  badge.hidden = !events.length;
  badge.textContent = events.length;
  badge.classList.toggle("bad", events.some(({ level }) => level === "error"));
  if (panel.dataset.key === key) return; // or what somebody is reading would be drawn anew four times a second
  panel.dataset.key = key;
  panel.querySelector(".none").hidden = events.length > 0;
  panel.querySelector("ol").replaceChildren(...events.toReversed().map(({ time_s: time, level, source, text }) => {
    const item = document.createElement("li");
    item.dataset.level = level;
    for (const [name, words] of [["time", clock(time)], ["b", source], ["span", text]]) {
      item.appendChild(document.createElement(name)).textContent = words;
    }
    return item;
  }));
}
