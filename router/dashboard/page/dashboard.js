// The link to the router, and the order in which a state is drawn. States come whole, as server-sent events.
import { drawWorkers } from "./cards.js";
import { byId, clock, make, rate, replaceIfChanged, seconds, setText, show, whole } from "./dom.js";
import { drawMoves } from "./moves.js";
import { askForKey, drawOperations, listen, order, shownKey } from "./operations.js";
import { Refusal, states } from "./states.js";
import { drawHistory } from "./timeline.js";

const PATIENCE_MS = 5000; // states come every second
const RETRY_MS = 1500;
const KEY_MS = 300; // after the last letter of a key

let last = null; // the state on the page
let link = new AbortController();
let watch = 0;

async function connect() {
  link.abort();
  link = new AbortController();
  const { signal } = link;
  arm(PATIENCE_MS);
  try {
    for await (const state of states(shownKey(), signal)) {
      if (signal.aborted) return;
      arm(PATIENCE_MS);
      draw(state);
    }
    throw new Error("the stream has ended");
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refusal) {
      refuse(error.message);
      return;
    }
    lose();
    arm(RETRY_MS);
  }
}

// Nothing is tried again before there is another key.
function refuse(reason) {
  clearTimeout(watch);
  lose();
  setText(byId("banner"), `The router tells nothing without a key: ${reason}.`);
  askForKey();
}

// Tries anew, whatever the browser does, when nothing has come for so long.
function arm(patienceMs) {
  clearTimeout(watch);
  watch = setTimeout(() => {
    lose();
    connect();
  }, patienceMs);
}

function lose() {
  if (byId("link").dataset.link === "lost") return;
  byId("link").dataset.link = "lost";
  setText(byId("link-text"), "Disconnected");
  document.body.classList.add("stale");
  const since = last ? `What you see is of ${clock(last.at)}, the last update.` : "Nothing has been heard of it yet.";
  setText(byId("banner"), `The router does not answer. ${since} Trying again …`);
  show(byId("banner"), true);
}

function find() {
  const wasLost = byId("link").dataset.link === "lost";
  byId("link").dataset.link = "live";
  setText(byId("link-text"), "Live");
  document.body.classList.remove("stale");
  show(byId("banner"), false);
  return wasLost ? ["The router answers again."] : [];
}

function draw(state) {
  const news = find();
  setText(byId("model"), state.model);
  document.title = `${state.alarms.length ? `(${state.alarms.length}) ` : ""}Baton ${state.model}`;
  setText(byId("controller"), controllerInWords(state));
  drawAlarms(state.alarms);
  drawRequests(state);
  news.push(...drawWorkers(state, last, order));
  drawHistory(state);
  drawMoves(state, last);
  drawOperations(state);
  if (news.length) setText(byId("said"), news.join(" "));
  last = state;
}

function controllerInWords(state) {
  if (!state.is_auto) return "Roles: changed by operators only";
  return state.is_leader ? "Roles: automatic, decided by this router" : "Roles: automatic; this router does not decide";
}

function drawAlarms(alarms) {
  show(byId("alarms"), alarms.length > 0);
  replaceIfChanged(byId("alarm-list"), alarms.map((alarm) => make("li", alarm)));
}

function drawRequests({ requests, limits }) {
  drawPercentiles("ttft", "Time to first token", requests.ttft, limits.ttft_s);
  drawPercentiles("tpot", "Time per token after it", requests.tpot, limits.tpot_s);
  const { attainment, num_judged: judged, num_failed: failed } = requests;
  tile("attainment", attainment === null ? "–" : `${Math.floor(100 * attainment)} %`, `of ${whole(judged)}, ${whole(failed)} failed`);
  tile("rate", `${rate(requests.requests_per_s)} /s`, `${rate(requests.prompt_tokens_per_s)} prompt tokens/s`);
  tile("tokens", `${rate(requests.answer_tokens_per_s)}`, "tokens/s");
}

function tile(id, value, note) {
  const [figure, words] = byId(id).querySelectorAll("dd");
  setText(figure, value);
  setText(words, note);
}

// Bars end at one and a half times the limit; the mark is the limit.
function drawPercentiles(id, title, times, limit) {
  const heading = make("h3", `${title}, limit ${seconds(limit)}`);
  const lines = ["p50", "p90", "p99"].map((name) => {
    const isOver = times !== null && times[name] > limit;
    const line = make("div", "", "percentile");
    const bar = make("span", "", isOver ? "bar over-bar" : "bar");
    const fill = make("i");
    fill.dataset.share = times ? Math.min(100, (66.6 * times[name]) / limit).toFixed(1) : "0";
    bar.append(fill, make("b"));
    const text = times ? `${seconds(times[name])}${isOver ? " over" : ""}` : "–";
    line.append(make("span", name), bar, make("span", text, isOver ? "over" : ""));
    return line;
  });
  replaceIfChanged(byId(id), [heading, ...lines]);
  for (const fill of byId(id).querySelectorAll("i")) fill.style.setProperty("width", `${fill.dataset.share}%`);
}

listen(() => {
  if (byId("link").dataset.link !== "live") arm(KEY_MS);
});
connect();
