// Elements and words. All text goes in as text, never as markup: names and reasons come from elsewhere.

export const byId = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Writes only what differs, so that screen readers and selections are left alone.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

// Puts `children` into `parent` unless what they say is there already.
export function replaceIfChanged(parent, children) {
  const sign = children.map((child) => child.outerHTML).join("");
  if (parent.dataset.sign === sign) return;
  parent.dataset.sign = sign;
  parent.replaceChildren(...children);
}

export const count = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
export const whole = (number) => Math.round(number).toLocaleString("en");
export const rate = (number) => (number >= 100 ? whole(number) : number.toFixed(1));

export function seconds(value) {
  if (value < 1) return `${whole(value * 1000)} ms`;
  return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
}

export function duration(value) {
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  return value < 86400 ? `${(value / 3600).toFixed(1)} h` : `${(value / 86400).toFixed(1)} days`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  for (; value >= 1000 && index < units.length - 1; index += 1) value /= 1000;
  return `${index && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

export function timed(unixSeconds, text) {
  const item = make("li");
  const time = make("time", clock(unixSeconds));
  time.dateTime = new Date(unixSeconds * 1000).toISOString();
  item.append(time, make("span", text));
  return item;
}
