// The control API of the node that this page came from. The token stays in this tab.

const KEY = "p2pmodel-token";
// Beside this file, so that it holds below a path of a reverse proxy, too.
const API = new URL("../api/v1/", import.meta.url);
const SILENCE = 20000; // The node sends something every 5 s.

export class ApiError extends Error {
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

async function request(path, options) {
  const response = await fetch(new URL(path, API), { ...options, headers: headers(options), cache: "no-store" });
  if (response.ok) return response;
  const reason = await response.json().catch(() => ({}));
  throw new ApiError(response.status, reason.message || `the node answered HTTP ${response.status}`);
}

export async function call(path, method = "GET", body = undefined) {
  const content = body && { body: JSON.stringify(body) };
  const response = await request(path, { method, ...content, signal: AbortSignal.timeout(30000) });
  return response.json();
}

// Calls onEvent(kind, value) for each event until the stream ends; throws if it breaks or stays silent too long.
export async function watch(path, opened, onEvent) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE);
  try {
    const response = await request(path, { signal: stop.signal });
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
        if (found) onEvent(found[1], JSON.parse(found[2]));
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
