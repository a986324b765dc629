// The form for a message: text, and pictures that are chosen, pasted or dropped.

import { picturesOf, scaled } from "./pictures.js";

const byId = (id) => document.getElementById(id);

let pictures = [], onSend = () => {}, onError = () => {}, allowed = false, answering = false;

export function setUp(send, error) {
  onSend = send;
  onError = error;
  byId("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  byId("message").addEventListener("input", refresh);
  // While an input method composes (Chinese, Japanese), Enter chooses a word. Safari reports key 229 then.
  byId("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    submit();
  });
  window.addEventListener("resize", refresh);
  byId("attach").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async () => {
    const files = picturesOf(byId("file").files);
    byId("file").value = "";
    await addAll(files);
  });
  document.addEventListener("paste", (event) => {
    const files = picturesOf(event.clipboardData?.files);
    if (!files.length) return;
    event.preventDefault();
    addAll(files);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("composer").classList.add("dropping");
  });
  document.addEventListener("dragleave", () => byId("composer").classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("composer").classList.remove("dropping");
    addAll(picturesOf(event.dataTransfer?.files));
  });
}

// `ready`: whether the model answers; `takes`: whether it takes pictures; `busy`: whether it answers just now.
export function allow({ ready, takes, busy }) {
  allowed = ready;
  answering = busy;
  byId("attach").hidden = ready && !takes;
  byId("stop").hidden = !busy;
  byId("send").hidden = busy;
  refresh();
}

export function restore(turn) {
  if (!byId("message").value) byId("message").value = turn.text;
  pictures = [...turn.pictures, ...pictures];
  refresh();
}

function refresh() {
  const area = byId("message");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 1}px`;
  byId("send").disabled = !allowed || !(area.value.trim() || pictures.length);
  byId("pictures").hidden = !pictures.length;
  byId("pictures").replaceChildren(...pictures.map((picture, index) => {
    const item = document.getElementById("picture").content.firstElementChild.cloneNode(true);
    item.querySelector("img").src = picture;
    item.querySelector("button").addEventListener("click", () => {
      pictures.splice(index, 1);
      refresh();
      area.focus();
    });
    return item;
  }));
}

async function addAll(files) {
  for (const file of files) {
    try {
      pictures.push(await scaled(file));
      onError("");
    } catch (error) {
      onError(error.message);
    }
  }
  refresh();
  byId("message").focus();
}

function submit() {
  const area = byId("message"), text = area.value.trim();
  if (!allowed || answering || !(text || pictures.length)) return;
  const turn = { role: "user", text, pictures };
  area.value = "";
  pictures = [];
  refresh();
  onSend(turn);
}
