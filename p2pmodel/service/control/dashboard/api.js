// The control API of the node that this page came from. The token stays in this tab.

const KEY = "p2pmodel-token";
const SILENCE = 20000; // The node says something every 5 s.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const keepToken = (token) => sessionStorage.setItem(KEY, token);

function headers({ body }) {
  const token = sessionStorage.getItem(KEY), found = {};
  if (token) found.Authorization = `Bearer ${token}`;
  if (body) found["Content-Type"] = "application/json";
  return found;
}

async function answer(path, options) {
  const response = await fetch(`/api/v1/${path}`, { ...options, headers: headers(options), cache: "no-store" });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(response.status, said.message || `the node answered ${response.status}`);
}

export async function ask(path, method = "GET", body = undefined) {
  const sent = body && { body: JSON.stringify(body) };
  const response = await answer(path, { method, ...sent, signal: AbortSignal.timeout(30000) });
  return response.json();
}

// Calls tell(kind, value) for each event until the stream ends; throws when it breaks or falls silent.
export async function watch(path, opened, tell) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE);
  try {
    const response = await answer(path, { signal: stop.signal });
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const found = /^event: (\w+)\ndata: (.*)$/s.exec(event);
        if (found) tell(found[1], JSON.parse(found[2]));
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
