// The page's part in a steered scan: what the policy wants next, what persons have said, and saying it.

import { setTool, view } from "./image/view.js";

const CONFIRM_MS = 10000;

const byId = (id) => document.getElementById(id);
const number = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString("en");
const strip = byId("steering");
let state = null;
let confirmUntil = 0;

function text(id, value) {
  byId(id).textContent = value;
  byId(id).title = value;
}

function planSays({ plan, source, reason, held, stopped, asked_s: askedS }) {
  if (plan === "none") return "no plan has asked yet";
  if (plan === "ended") return `ended: ${reason}`;
  if (stopped) return "stopping after this batch";
  if (held && source !== "person") return "holding after this batch";
  if (askedS > 30) return `the plan has been silent for ${askedS.toFixed(0)} s`;
  return source ? `${source}: ${reason}` : "waiting for the first decision";
}

export function showSteering(steering, redraw) {
  strip.hidden = !steering;
  state = steering ?? null;
  view.steering = steering?.limits ? steering : null;
  if (!steering) return;
  text("trouble", steering.trouble);
  strip.classList.toggle("silent", Boolean(steering.trouble));
  const runs = steering.plan === "running" && !steering.trouble && !steering.stopped;
  for (const button of strip.querySelectorAll("button")) button.disabled = !runs || !steering.token;
  strip.classList.toggle("watching", steering.trouble === "" && !steering.token);
  if (view.steering) showFacts(steering);
  redraw();
}

function showFacts(steering) {
  const { held, reasons, n_measured: measured, n_left: left, max_dose: most, dose_peak: dose } = steering;
  strip.classList.toggle("held", held);
  text("plan", planSays(steering));
  const [kind, ...why] = (reasons[0] ?? "waiting: no question yet").split(": ");
  const audit = byId("audit");
  audit.textContent = kind;
  audit.dataset.kind = kind;
  text("audit-why", [why.join(": "), ...reasons.slice(1)].join("; "));
  text("measured", `${measured.toLocaleString("en")} measured`);
  text("left", `${left.toLocaleString("en")} left, ${Math.min(left, steering.points_px.length)} next`);
  byId("dose-bar").style.width = most ? `${Math.min((100 * dose) / most, 100)}%` : "0";
  byId("dose-bar").classList.toggle("full", Boolean(most) && dose > 0.95 * most);
  text("dose", most ? `${number(dose)} of ${number(most)} photons/px` : `${number(dose)} photons/px, no limit`);
  const gain = (value) => steering.shown_predicted_gain ? number(value) : "–";
  text("predicted", gain(steering.shown_predicted_gain));
  text("realised", gain(steering.realised_gain));
  text("said", steering.said.at(-1) ?? "");
  byId("hold").textContent = held ? "resume" : "hold";
  byId("hold").setAttribute("aria-pressed", held);
  byId("clear").disabled ||= !steering.region;
  if (performance.now() > confirmUntil) byId("stop").textContent = "stop";
  byId("draw").setAttribute("aria-pressed", view.tool === region);
}

async function say(deed, corners = null) {
  const own = { "Content-Type": "application/json", "X-Steering-Token": state.token };
  const answer = await fetch("steer", { method: "POST", headers: own, body: JSON.stringify({ deed, corners }) })
    .catch((error) => ({ ok: false, text: async () => String(error) }));
  text("refusal", answer.ok ? "" : await answer.text());
}

// A region of interest that is being drawn, and then said: two corners, absolute object pixels (y, x).
const region = {
  name: "region",
  draw: (corners) => { view.rectangle = corners; },
  done: ([[y0, x0], [y1, x1]]) => {
    setTool(null);
    if (y0 === y1 || x0 === x1) return;
    say("region", [[Math.min(y0, y1), Math.min(x0, x1)], [Math.max(y0, y1), Math.max(x0, x1)]]);
  },
};

export function listen(redraw) {
  byId("hold").addEventListener("click", () => say(state.held ? "resume" : "hold"));
  byId("stop").addEventListener("click", () => {
    if (performance.now() < confirmUntil) {
      confirmUntil = 0;
      say("stop");
    } else {
      confirmUntil = performance.now() + CONFIRM_MS;
      byId("stop").textContent = "really?";
    }
  });
  byId("clear").addEventListener("click", () => say("clear"));
  byId("draw").addEventListener("click", () => setTool(view.tool === region ? null : region));
  document.addEventListener("tool", () => {
    view.rectangle = null;
    byId("draw").setAttribute("aria-pressed", view.tool === region);
    redraw();
  });
}
