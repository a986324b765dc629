// The turns of a conversation. What the model says is inserted as text only, never as HTML.

const NAMES = { user: "You", assistant: "Model" };
const NEAR = 80; // pixels from the end within which the view follows the answer

const place = () => document.getElementById("messages");

export function clear() {
  place().replaceChildren();
}

export function add(turn) {
  const root = document.getElementById("turn").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  root.dataset.role = turn.role;
  find(".side").textContent = NAMES[turn.role];
  for (const picture of turn.pictures ?? []) {
    const shown = document.createElement("img");
    shown.src = picture;
    shown.alt = "Picture of the message";
    find(".shown-pictures").append(shown);
  }
  const view = { root, turn, answer: find(".answer"), thinking: find(".thinking"), end: find(".end") };
  place().append(root);
  show(view);
  place().scrollTop = place().scrollHeight;
  return view;
}

export function show(view) {
  const { turn } = view, box = place(), follows = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  view.thinking.hidden = !turn.thinking;
  view.thinking.querySelector(".text").textContent = turn.thinking ?? "";
  if (turn.role === "user") view.answer.textContent = turn.text;
  else view.answer.replaceChildren(...formatted(turn.text));
  view.end.textContent = turn.end ?? "";
  view.end.hidden = !turn.end;
  if (follows) box.scrollTop = box.scrollHeight;
}

export function busy(view, on) {
  view.root.setAttribute("aria-busy", String(on));
}

export function drop(view) {
  view.root.remove();
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// Code blocks, `code` and **bold** of Markdown; everything else stays as it is written.
function formatted(text) {
  const nodes = [];
  text.split(/^```[^\n]*\n?/m).forEach((part, index) => {
    if (index % 2) {
      const block = document.createElement("pre");
      block.append(element("code", part.replace(/\n$/, "")));
      nodes.push(block);
      return;
    }
    for (const piece of part.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
      if (/^`.+`$/.test(piece)) nodes.push(element("code", piece.slice(1, -1)));
      else if (/^\*\*.+\*\*$/.test(piece)) nodes.push(element("strong", piece.slice(2, -2)));
      else if (piece) nodes.push(document.createTextNode(piece));
    }
  });
  return nodes;
}
