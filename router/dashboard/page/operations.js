// The operator's hand. The key lives in this tab's session storage only and is sent in a header, so that no other page
// can use it.
import { byId, make, replaceIfChanged, setText, show, timed } from "./dom.js";

const STORED_KEY = "baton-operator-key";
const TIMEOUT_MS = 15000; // longer than the router lets an order take: 12 s
const numbers = [byId("num-prefill"), byId("num-decode")];
let isSplitTouched = false;

export const shownKey = () => byId("key").value.trim();

// `onKey` is called whenever another key was entered.
export function listen(onKey) {
  byId("key").value = sessionStorage.getItem(STORED_KEY) ?? "";
  byId("key").addEventListener("input", () => {
    sessionStorage.setItem(STORED_KEY, shownKey());
    onKey();
  });
  byId("key-form").addEventListener("submit", (event) => event.preventDefault());
  byId("forget").addEventListener("click", forget);
  for (const input of numbers) input.addEventListener("input", () => { isSplitTouched = true; });
  byId("rebalance").addEventListener("submit", (event) => {
    event.preventDefault();
    rebalance(false, event.submitter);
  });
  byId("preview").addEventListener("click", (event) => {
    if (byId("rebalance").reportValidity()) rebalance(true, event.currentTarget);
  });
  byId("auto").addEventListener("click", (event) => {
    order("auto", { is_auto: event.currentTarget.getAttribute("aria-pressed") !== "true" }, event.currentTarget);
  });
  byId("outcome").querySelector("button").addEventListener("click", () => show(byId("outcome"), false));
}

export function askForKey() {
  show(byId("operations"), true);
  byId("key").focus();
}

export function drawOperations(state) {
  show(byId("operations-off"), !state.can_operate);
  show(byId("operations"), state.can_operate);
  if (!isSplitTouched) {
    const there = state.workers.filter((worker) => !worker.is_cordoned); // a split is of these
    ["prefill", "decode"].forEach((role, index) => {
      numbers[index].value = there.filter((worker) => worker.role === role).length;
    });
  }
  byId("auto").setAttribute("aria-pressed", state.is_auto);
  setText(byId("auto-note"), state.is_auto ? "on: the controller decides" : "off: only operators change roles");
  if (state.decision) drawDecision(state.decision);
  replaceIfChanged(byId("actions"), state.actions.map((entry) => timed(entry.at, `${entry.actor}: ${entry.action}: ${entry.outcome}`)));
  show(byId("no-actions"), !state.actions.length);
}

// Sends an order and shows what the router says to it; returns whether it was taken.
export async function order(path, body, button) {
  if (button.getAttribute("aria-disabled") === "true") return false;
  const key = shownKey();
  if (!key) {
    say("Enter the operator's key first.", true);
    byId("key").focus();
    return false;
  }
  button.setAttribute("aria-disabled", "true");
  const [text, hasFailed] = await send(path, body, key).catch((error) => [`There is no answer: ${error.message}`, true]);
  button.removeAttribute("aria-disabled");
  say(text, hasFailed);
  return !hasFailed;
}

// What the router says, and whether it is a failure.
async function send(path, body, key) {
  const response = await fetch(`dashboard/roles/${path}`, {
    method: "POST",
    credentials: "omit",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json();
  return response.ok ? [answer.messages.join("\n"), answer.stage === "failed"] : [`Refused: ${answer.error.message}`, true];
}

async function rebalance(isDryRun, button) {
  const [prefill, decode] = numbers.map((input) => input.valueAsNumber);
  const isTaken = await order("rebalance", { num_prefill: prefill, num_decode: decode, is_dry_run: isDryRun }, button);
  if (isTaken && !isDryRun) isSplitTouched = false;
}

function forget() {
  sessionStorage.removeItem(STORED_KEY);
  byId("key").value = "";
  say("The key is forgotten.", false);
}

function say(text, hasFailed) {
  const box = byId("outcome");
  box.classList.toggle("failed", hasFailed);
  show(box, true);
  box.querySelector("p").textContent = text;
}

function drawDecision(decision) {
  setText(byId("decision"), inWords(decision));
  const numbers = Object.entries(decision.numbers);
  show(byId("numbers"), numbers.length > 0);
  replaceIfChanged(byId("numbers").querySelector("ul"), numbers.map(([name, value]) => make("li", `${name}: ${Number(value.toPrecision(4))}`)));
}

function inWords(decision) {
  const split = `${decision.num_prefill} prefill and ${decision.num_decode} decode`;
  const isKept = decision.num_prefill === decision.wanted_prefill && decision.num_decode === decision.wanted_decode;
  const wanted = isKept ? `keeps ${split}` : `from ${split} to ${decision.wanted_prefill} and ${decision.wanted_decode}`;
  return `${decision.reason} (${wanted})`;
}
