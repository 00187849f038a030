// KV that moves between workers: totals, and a line whenever the totals of a pair have grown.
import { byId, bytes, count, make, replaceIfChanged, show, timed, whole } from "./dom.js";

const MAX_EVENTS = 40;
const events = [];

export function drawMoves(state, before) {
  if (before) noteEvents(state, before);
  const sum = (name) => state.pairs.reduce((total, pair) => total + pair[name], 0);
  const migrated = state.changes.reduce((total, change) => total + change.num_migrated, 0);
  const counts = [["Handoffs", whole(sum("num_handoffs"))], ["KV moved", bytes(sum("num_bytes"))], ["Failed", whole(sum("num_failed"))], ["Migrated, last hour", whole(migrated)]];
  replaceIfChanged(byId("move-counts"), counts.map(([label, text]) => {
    const group = make("div");
    group.append(make("dt", label), make("dd", text));
    return group;
  }));
  replaceIfChanged(byId("moves"), events.map(([at, text]) => timed(at, text)));
  show(byId("no-moves"), !events.length);
}

function noteEvents(state, before) {
  const key = (pair) => `${pair.source}\n${pair.target}`;
  const former = new Map(before.pairs.map((pair) => [key(pair), pair]));
  for (const pair of state.pairs) {
    const was = former.get(key(pair)) ?? { num_handoffs: 0, num_bytes: 0, num_failed: 0 };
    const [handoffs, failed] = [pair.num_handoffs - was.num_handoffs, pair.num_failed - was.num_failed];
    const words = [];
    if (handoffs > 0) words.push(`${count(handoffs, "handoff")}, ${bytes(Math.max(0, pair.num_bytes - was.num_bytes))}`);
    if (failed > 0) words.push(`${count(failed, "handoff")} failed`);
    if (words.length) note(state.at, `${pair.source} → ${pair.target}: ${words.join("; ")}`);
  }
  const migrated = new Map(before.changes.map((change) => [change.order_id, change.num_migrated]));
  for (const change of state.changes) {
    const number = change.num_migrated - (migrated.get(change.order_id) ?? 0);
    if (number > 0) note(state.at, `${change.worker.name}: ${count(number, "sequence")} migrated to other workers`);
  }
}

function note(at, text) {
  events.unshift([at, text]);
  events.length = Math.min(events.length, MAX_EVENTS);
}
