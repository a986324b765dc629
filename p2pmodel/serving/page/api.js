// The endpoint that this page came from. Its key stays in this tab.

const KEY = "p2pmodel-key";
// Beside this file, so that it holds below a path of a reverse proxy, too.
const BASE = new URL("../", import.meta.url);
const QUICK = 15000;

export class ApiError extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }

  // Whether another key may help: the server asks for one, or refuses what this one may do.
  get needsKey() {
    return this.status === 401 || (this.status === 403 && this.code !== "");
  }
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);

function headers(body) {
  const key = sessionStorage.getItem(KEY), found = {};
  if (key) found.Authorization = `Bearer ${key}`;
  if (body) found["Content-Type"] = "application/json";
  return found;
}

async function failure(response) {
  const said = await response.json().catch(() => ({}));
  const text = said.error?.message || said.message || `the server answered HTTP ${response.status}`;
  return new ApiError(response.status, text, said.error?.code);
}

export async function model() {
  const response = await fetch(new URL("v1/models", BASE), {
    headers: headers(), cache: "no-store", signal: AbortSignal.timeout(QUICK),
  });
  if (!response.ok) throw await failure(response);
  return (await response.json()).data[0].id;
}

// How far the model has come. The status is 503 until it is ready; the body is the same.
export async function startup() {
  const response = await fetch(new URL("startupz", BASE), { cache: "no-store", signal: AbortSignal.timeout(QUICK) });
  const found = await response.json().catch(() => null);
  if (!found?.phase) throw new ApiError(response.status, `the server answered HTTP ${response.status}`);
  return found;
}

// Streams the answer: onPart(text, isThinking) for each part. Returns why it ended.
export async function answer(messages, signal, onPart) {
  const body = JSON.stringify({ messages, stream: true });
  const response = await fetch(new URL("v1/chat/completions", BASE), { method: "POST", headers: headers(body), body, signal });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", finish = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(0, "the connection ended before the answer");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : "";
      if (data === "[DONE]") return finish;
      if (!data) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(500, chunk.error.message);
      const [choice] = chunk.choices;
      if (choice?.delta.reasoning_content) onPart(choice.delta.reasoning_content, true);
      if (choice?.delta.content) onPart(choice.delta.content, false);
      finish = choice?.finish_reason ?? finish;
    }
  }
}
