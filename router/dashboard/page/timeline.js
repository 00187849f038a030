// Who was for what in the last hour: a row per worker, and a table of the changes with their reasons.
import { byId, clock, make, replaceIfChanged, seconds, show } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HOUR_S = 3600;
const [ROW, BAR, TOP, AXIS] = [27, 17, 4, 22]; // heights, px
const LETTERS = { prefill: "P", decode: "D", mixed: "M" };

let drawn = "";

export function drawHistory(state) {
  drawTimeline(state);
  show(byId("changes"), state.changes.length > 0);
  show(byId("no-changes"), !state.changes.length && state.workers.length > 0);
  replaceIfChanged(byId("changes").querySelector("tbody"), state.changes.map(row));
}

// Redrawn when a pixel's worth of time has passed, or a role has changed.
function drawTimeline(state) {
  const box = byId("timeline");
  // Also one that failed later: a worker that was told off for doing nothing is in its new role all the same.
  const isFlip = (change) => change.before !== change.after && change.changed_s > 0;
  const changes = state.changes.filter(isFlip);
  const roles = new Map(state.workers.map((worker) => [worker.name, worker]));
  const names = [...new Set([...roles.keys(), ...changes.map((change) => change.worker.name)])].sort();
  show(box, names.length > 0);
  const width = Math.max(260, box.clientWidth - 24);
  const sign = JSON.stringify([width, Math.floor(state.at / 4), names, changes.length, changes[0]?.order_id, state.workers.map((w) => w.role)]);
  if (sign === drawn) return;
  drawn = sign;

  const left = Math.min(width * 0.3, 14 + 7.2 * Math.max(...names.map((name) => name.length)));
  const height = TOP + ROW * names.length + AXIS;
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  svg.setAttribute("aria-label", `Roles of ${names.length} workers in the last hour, ${changes.length} changes; the table has each`);
  svg.append(patterns());
  const x = (at) => left + (width - left) * Math.min(1, Math.max(0, 1 - (state.at - at) / HOUR_S));
  const step = width - left < 400 ? 30 : 15;
  for (let minutes = 60; minutes >= 0; minutes -= step) axis(svg, x(state.at - 60 * minutes), height, minutes);
  names.forEach((name, index) => {
    const y = TOP + ROW * index;
    svg.append(node("text", { x: 0, y: y + 13, class: "name" }, shorten(name, left)));
    const mine = changes.filter((change) => change.worker.name === name).reverse();
    for (const segment of segments(mine, roles.get(name), state.at)) bar(svg, segment, x, y);
    for (const change of mine) mark(svg, change, x(change.ordered_at + change.changed_s), y);
  });
  box.replaceChildren(svg);
}

// Half-open spans of one role each, oldest first: [start, change), [change, change), ..., [change, now).
function segments(changes, worker, now) {
  const first = changes[0]?.before ?? worker?.role;
  let start = Math.max(now - HOUR_S, changes.length || !worker ? 0 : now - worker.since_s);
  let role = first;
  const spans = [];
  for (const change of changes) {
    const end = change.ordered_at + change.changed_s;
    spans.push({ role, start, end });
    [role, start] = [change.after, end];
  }
  if (worker) spans.push({ role: worker.role, start, end: now });
  return spans;
}

function bar(svg, { role, start, end }, x, y) {
  const width = x(end) - x(start);
  if (width <= 0) return;
  const fill = role === "prefill" ? {} : { fill: `url(#stripes-${role})` };
  const rect = node("rect", { x: x(start), y, width, height: BAR, class: `segment ${role}`, ...fill });
  rect.append(node("title", {}, `${role}, ${clock(start)} to ${clock(end)}`));
  svg.append(rect);
  if (width < 18) return;
  svg.append(node("rect", { x: x(start) + 3, y: y + 2, width: 14, height: 13, rx: 2, class: "plate" }));
  svg.append(node("text", { x: x(start) + 10, y: y + 13, "text-anchor": "middle", class: "name" }, LETTERS[role]));
}

function mark(svg, change, at, y) {
  const line = node("line", { x1: at, x2: at, y1: y - 3, y2: y + BAR + 3, class: "flip" });
  line.append(node("title", {}, `${clock(change.ordered_at)} ${change.before} to ${change.after}: ${change.reason}`));
  svg.append(line);
}

function axis(svg, at, height, minutes) {
  svg.append(node("line", { x1: at, x2: at, y1: 0, y2: height - AXIS + 3, class: "grid" }));
  const anchor = minutes === 60 ? "start" : minutes ? "middle" : "end";
  svg.append(node("text", { x: at, y: height - 5, "text-anchor": anchor }, minutes ? `-${minutes} min` : "now"));
}

function patterns() {
  const defs = node("defs");
  for (const [role, turn] of [["decode", 45], ["mixed", 0]]) {
    const pattern = node("pattern", { id: `stripes-${role}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${turn})` });
    pattern.append(node("rect", { width: 4, height: 6, class: `ink ${role}` }));
    defs.append(pattern);
  }
  return defs;
}

function row(change) {
  const line = make("tr");
  const steps = { ordered: "ordered", changed: "changed, not yet verified", verified: `verified after ${seconds(change.verified_s)}`, failed: "failed" };
  const requests = [[change.num_migrated, "migrated"], [change.num_returned, "placed again"], [change.num_finished, "finished there"]];
  const state = [steps[change.stage], change.message].filter(Boolean).join(": ");
  line.append(
    make("td", clock(change.ordered_at)),
    make("td", change.worker.name),
    make("td", change.before === change.after ? `${change.after} kept` : `${change.before} → ${change.after}`),
    make("td", change.reason || "–", "reason"),
    make("td", change.actor),
    make("td", state, change.stage === "failed" ? "over" : ""),
    make("td", requests.filter(([number]) => number).map(([number, word]) => `${number} ${word}`).join(", ") || "–"),
  );
  return line;
}

function shorten(name, width) {
  const room = Math.floor((width - 8) / 7.2);
  return name.length > room ? `${name.slice(0, room - 1)}…` : name;
}

function node(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}
