// Workers as cards in their pools. A card lives as long as its worker, and glides when it changes pools (FLIP: first,
// last, invert, play).
import { byId, duration, make, rate, replaceIfChanged, setText, show, whole } from "./dom.js";

const GLIDE_MS = 550;
const QUIET_S = 5; // a worker reports every second while it has work, and every two otherwise

const cards = new Map();
const stillness = matchMedia("(prefers-reduced-motion: reduce)");

// Draws the workers of `state`; `before` is the state before, for rates, or null. Returns what has happened, in words.
export function drawWorkers(state, before, order) {
  const news = [];
  const places = new Map([...cards].map(([name, card]) => [name, card.getBoundingClientRect()]));
  const former = new Map((before?.workers ?? []).map((worker) => [worker.name, worker]));
  for (const worker of state.workers) {
    const was = former.get(worker.name);
    if (was && was.role !== worker.role) news.push(`${worker.name} is now a ${worker.role} worker.`);
    drawCard(worker, was, state.at - (before?.at ?? state.at), state.can_operate, order);
  }
  const focused = document.activeElement; // a card that is put elsewhere loses it
  removeLost(state.workers, news);
  putIntoPools(state.workers);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  if (!stillness.matches) for (const [name, place] of places) glide(cards.get(name), place);
  show(byId("no-workers"), !state.workers.length);
  show(byId("pools"), state.workers.length > 0);
  return news;
}

function drawCard(worker, was, elapsedS, canOperate, order) {
  let card = cards.get(worker.name);
  if (!card) {
    card = byId("card").content.firstElementChild.cloneNode(true);
    const title = card.querySelector("h4");
    title.id = `worker-${cards.size}-${worker.name}`;
    title.textContent = worker.name;
    card.setAttribute("aria-labelledby", title.id);
    card.querySelector(".buttons").setAttribute("aria-label", `Orders for ${worker.name}`);
    cards.set(worker.name, card);
  }
  card.classList.toggle("changing", worker.is_changing);
  card.classList.toggle("cordoned", worker.is_cordoned);
  replaceIfChanged(card.querySelector(".badges"), badges(worker));
  gauge(card, "kv", worker.kv_blocks_used, worker.kv_blocks);
  gauge(card, "running", worker.running_sequences, worker.max_num_seqs);
  const speed = (name) => (was && elapsedS > 0 ? rate(Math.max(0, worker[name] - was[name]) / elapsedS) : "–");
  const fields = {
    queued: `${whole(worker.queued_prompts)} (${whole(worker.pending_prompt_tokens)} tokens)`,
    prompt: speed("prompt_tokens_computed"),
    answer: speed("decode_tokens_computed"),
    since: duration(worker.since_s),
  };
  for (const [name, text] of Object.entries(fields)) setText(card.querySelector(`[data-field="${name}"]`), text);
  drawButtons(card.querySelector(".buttons"), worker, canOperate, order);
}

function badges(worker) {
  const list = [make("li", worker.role, "role")];
  if (worker.is_changing) list.push(make("li", worker.num_leaving ? `changing, ${worker.num_leaving} leaving` : "changing", "warn"));
  else if (worker.num_leaving) list.push(make("li", `${worker.num_leaving} leaving`));
  if (worker.migrations_open) list.push(make("li", `${worker.migrations_open} migrating`));
  if (worker.is_pinned) list.push(make("li", "pinned"));
  if (worker.is_cordoned) list.push(make("li", "cordoned: no new work", "warn"));
  if (worker.silent_s > QUIET_S) list.push(make("li", `silent for ${duration(worker.silent_s)}`, "warn"));
  return list;
}

function gauge(card, name, used, total) {
  const part = card.querySelector(`[data-gauge="${name}"]`);
  const percent = total ? Math.min(100, Math.round((100 * used) / total)) : 0;
  const text = `${whole(used)} of ${whole(total)}`;
  setText(part.querySelector("dd"), text);
  const meter = part.querySelector(".meter");
  meter.setAttribute("aria-valuenow", percent);
  meter.setAttribute("aria-valuetext", text);
  meter.firstElementChild.style.setProperty("width", `${percent}%`);
}

// Buttons are kept while they mean the same, so that the keyboard's focus stays. Else it goes to the one with the same
// label, or to the card: never to a button that does something else.
function drawButtons(group, worker, canOperate, order) {
  const wanted = canOperate ? orders(worker) : [];
  const sign = JSON.stringify(wanted);
  if (group.dataset.sign === sign) return;
  group.dataset.sign = sign;
  const focused = group.contains(document.activeElement) ? document.activeElement.textContent : null;
  group.replaceChildren(...wanted.map(([label, path, body]) => {
    const button = make("button", label);
    button.type = "button";
    button.setAttribute("aria-label", `${label}: ${worker.name}`);
    button.addEventListener("click", () => order(path, body, button));
    return button;
  }));
  if (focused === null) return;
  const successor = [...group.children].find((button) => button.textContent === focused) ?? group.closest(".card");
  successor.focus({ preventScroll: true });
}

function orders(worker) {
  const { name, incarnation, epoch } = worker;
  const list = ["prefill", "decode", "mixed"]
    .filter((role) => role !== worker.role)
    .map((role) => [`To ${role}`, "set", { worker: name, role, epoch, incarnation }]);
  if (worker.is_pinned) list.push(["Unpin", "set", { worker: name, role: null, epoch, incarnation }]);
  else list.push(["Pin", "set", { worker: name, role: worker.role, epoch, incarnation }]);
  list.push(worker.is_cordoned ? ["Uncordon", "uncordon", { worker: name }] : ["Drain", "drain", { worker: name }]);
  return list;
}

function removeLost(workers, news) {
  const names = new Set(workers.map((worker) => worker.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.remove();
    cards.delete(name);
    news.push(`${name} is gone.`);
  }
}

function putIntoPools(workers) {
  for (const pool of document.querySelectorAll(".pool")) {
    const { role } = pool.dataset;
    const members = workers.filter((worker) => worker.role === role).map((worker) => cards.get(worker.name));
    const list = pool.querySelector(".cards");
    members.forEach((card, index) => {
      if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
      card.dataset.role = role;
    });
    setText(pool.querySelector("h3 small"), `${members.length}`);
    if (role === "mixed") show(pool, members.length > 0);
  }
}

function glide(card, from) {
  if (!card) return;
  const to = card.getBoundingClientRect();
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (Math.hypot(x, y) < 2 || !from.width) return;
  const steps = [{ transform: `translate(${x}px, ${y}px)`, zIndex: 1 }, { transform: "none", zIndex: 1 }];
  card.animate(steps, { duration: GLIDE_MS, easing: "cubic-bezier(.2, .7, .2, 1)" });
}
