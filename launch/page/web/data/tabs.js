// The tabs under the images. A tab with contents of its own names a module in its section:
//
//   <section id="probe" role="tabpanel" data-module="web/data/probe.js" hidden></section>
//
// The module exports `start(element)`, called once with its section. From then on the section hears the events
// "shown" and "hidden", and the document hears "state" (`event.detail` is the state as the server sends it,
// four times a second). What `start` draws should wait for "shown". A module puts a stored picture packet on
// the panels with `show(packet, label)` of image/pictures.js.

import { remembered, remember } from "../settings.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

export function choose(tab) {
  for (const other of tabs) {
    const isChosen = other === tab;
    const wasChosen = other.getAttribute("aria-selected") === "true";
    other.setAttribute("aria-selected", isChosen);
    other.tabIndex = isChosen ? 0 : -1;
    panelOf(other).hidden = !isChosen;
    if (isChosen !== wasChosen) panelOf(other).dispatchEvent(new Event(isChosen ? "shown" : "hidden"));
  }
  remember("tab", tab.getAttribute("aria-controls"));
}

function move(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  choose(next);
  next.focus();
  event.stopPropagation();
}

export async function start() {
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", move);
    panelOf(tab).setAttribute("aria-label", tab.firstChild.textContent.trim());
  }
  await Promise.all(tabs.map(panelOf).filter((panel) => panel.dataset.module).map(async (panel) => {
    const module = await import(new URL(panel.dataset.module, document.baseURI)).catch(() => null);
    if (module) module.start(panel);
    else panel.textContent = "The viewer went away before this part of the page was loaded: load the page again.";
  }));
  const chosen = tabs.find((tab) => tab.getAttribute("aria-controls") === remembered("tab")) ?? tabs[0];
  chosen.setAttribute("aria-selected", false); // chosen while its module was loading, it has not heard of it
  choose(chosen);
}
