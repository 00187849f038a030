// KV that moves between workers: totals, and a line whenever the totals of a pair have grown.
import { byId, bytes, count, make, replaceIfChanged, seconds, show, timed, whole } from "./dom.js";

const MAX_EVENTS = 40;
const events = [];

export function drawMoves(state, before) {
  if (before) noteEvents(state, before);
  const sum = (name) => state.pairs.reduce((total, pair) => total + pair[name], 0);
  const ofWorkers = (name) => state.workers.map((worker) => worker[name]);
  const migrated = ofWorkers("migrations_sent").reduce((total, number) => total + number, 0);
  const counts = [
    ["Handoffs", whole(sum("num_handoffs"))],
    ["Failed", whole(sum("num_failed"))],
    ["KV moved", bytes(sum("num_bytes"))],
    ["Migrated", whole(migrated)],
    ["Longest stop", migrated ? seconds(Math.max(...ofWorkers("migration_longest_pause_s"))) : "–"],
  ];
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
  const workers = new Map(before.workers.map((worker) => [worker.name, worker]));
  for (const worker of state.workers) {
    const was = workers.get(worker.name);
    if (was?.incarnation !== worker.incarnation) continue;
    const [moved, stayed] = [worker.migrations_sent - was.migrations_sent, worker.migrations_failed - was.migrations_failed];
    if (moved > 0) note(state.at, `${worker.name}: ${count(moved, "sequence")} migrated to other workers`);
    if (stayed > 0) note(state.at, `${worker.name}: ${count(stayed, "sequence")} could not migrate and stayed`);
  }
}

function note(at, text) {
  events.unshift([at, text]);
  events.length = Math.min(events.length, MAX_EVENTS);
}
