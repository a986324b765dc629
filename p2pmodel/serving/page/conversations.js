// The conversations of this browser, in IndexedDB: localStorage is too small for pictures.

const NAME = "p2pmodel", STORE = "conversations";

const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

let opened;

function database() {
  opened ??= (() => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    return settled(request);
  })();
  return opened;
}

async function store(mode) {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

export const fresh = () => ({ id: `${Date.now()}-${Math.random().toString(36).slice(2)}`, title: "", updated: 0, turns: [] });

export async function all() {
  const found = await settled((await store("readonly")).getAll());
  return found.sort((a, b) => b.updated - a.updated);
}

export async function save(conversation) {
  conversation.updated = Date.now();
  conversation.title = conversation.turns.find((turn) => turn.text)?.text.trim().split("\n")[0].slice(0, 80) || "Picture";
  await settled((await store("readwrite")).put(conversation));
}

export async function remove(id) {
  await settled((await store("readwrite")).delete(id));
}
