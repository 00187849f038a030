// The router's states as they come. With fetch: an EventSource sends no key.

export class Refusal extends Error {}

// Yields states until the router ends the stream; throws a Refusal when it wants another key, or what fetch throws.
export async function* states(key, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch("dashboard/events", { headers, signal, credentials: "omit", cache: "no-store" });
  if (response.status === 401 || response.status === 403) throw new Refusal((await response.json()).error.message);
  if (!response.ok) throw new Error(`status ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (unread + value).split("\n\n");
    unread = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice("data: ".length));
    }
  }
}
