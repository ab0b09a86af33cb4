// The page: what clicks, boxes, keys and buttons do, and what the picture says about it.

import { Connection } from "./connection.js";
import { Input } from "./input.js";
import { Panel, isTouch } from "./panel.js";
import { decode, meaning } from "./picture.js";
import { Streams } from "./streams.js";
import { View } from "./view.js";

const PATIENCE = 10000; // milliseconds without a first frame after which the page says so

const byId = (id) => document.getElementById(id);
const view = new View(byId("view"));
const panel = new Panel({ select, remove, rename });
const streams = new Streams(showLarge);
const click = isTouch ? "Tap" : "Click";

let latest = null; // header of the frame on display
let selected = null; // id of the object that clicks refine
let isAdding = false; // whether the next click adds an object, wherever it is
let openedAt = 0;
let isDrawing = false;
let pending = null; // latest message not drawn yet

const handlers = {
  opened() {
    openedAt = Date.now();
    if (!latest) panel.waitFor("Connected. Waiting for the source to deliver its first frame.");
  },
  lost(reason) {
    panel.setStatus("lost", reason);
    panel.settleAll();
    panel.show(null);
    if (!latest) panel.waitFor("Connecting to sam2-edge serve.");
  },
  frame: onFrame,
  alive() {
    if (!latest) {
      if (Date.now() - openedAt > PATIENCE) {
        panel.waitFor("The source has not delivered a frame yet. The terminal of sam2-edge says why.");
      }
    } else {
      panel.show(latest);
      if (!latest.paused && !latest.finished) panel.setStatus("stalled", "no new frames");
    }
  },
  error(message, command) {
    panel.problem(message);
    panel.settle(command, true);
  },
  done: (command) => panel.settle(command, false),
  streams: (names, name) => streams.show(names, name),
};
let connection = new Connection(undefined, handlers);

// Shows another one of several streams large; what was selected belongs to the one before.
function showLarge(name) {
  if (name === streams.chosen) return;
  connection.close();
  pending = latest = null;
  view.clear();
  panel.settleAll();
  panel.list([]);
  panel.show(null);
  panel.problem("");
  panel.setStatus("connecting", "connecting");
  select(null);
  panel.say(`Showing ${name}.`);
  streams.show([...streams.small.keys()], name);
  connection = new Connection(name, handlers);
}

// A browser slower than the stream skips frames, but never the latest one.
async function onFrame(data) {
  pending = data;
  if (isDrawing) return;
  isDrawing = true;
  try {
    while (pending !== null) {
      const frame = decode(pending);
      streams.drawChosen(pending);
      pending = null;
      const picture = await createImageBitmap(frame.jpeg);
      if (frame.header.stream !== streams.chosen) continue; // another one was chosen meanwhile
      latest = frame.header;
      panel.waitFor("");
      panel.show(connection.isOpen ? latest : null);
      view.show(frame, picture);
      byId("view").dataset.frame = latest.frame;
      showHint();
    }
  } finally {
    isDrawing = false;
  }
}

function send(message) {
  const command = connection.send(message);
  panel.problem(command === null ? "Not connected. Wait until the page has reconnected." : "");
  return command;
}

function called(id) {
  const name = latest?.objects.find((o) => o.id === id)?.name;
  return name || `object ${id}`;
}

function select(id) {
  if (selected !== id) panel.say(id === null ? "Nothing is selected." : `Selected ${called(id)}.`);
  selected = id;
  isAdding = false;
  if (id === null) document.querySelector("input[name=sign][value='1']").checked = true;
  panel.select(id, isAdding);
  view.selected = id;
  view.draw();
  showHint();
}

function startAdding() {
  select(null);
  isAdding = true;
  panel.select(null, isAdding);
  showHint();
}

function remove(id) {
  if (send({ type: "remove", object: id }) !== null) panel.say(`Removed ${called(id)}.`);
}

function rename(id, name) {
  send({ type: "name", object: id, name });
}

function isForeground() {
  return document.querySelector("input[name=sign]:checked").value === "1";
}

function meaningOf(at, { background = false, insists = false }) {
  const foreground = isForeground() && !background;
  return { foreground, ...meaning(view.frame, at, { selected, isAdding, foreground, insists }) };
}

// What the page says below the picture: what a click would do here, or what can be done at all.
function showHint(at = null, insists = false) {
  if (at && latest) {
    const { kind, object, foreground } = meaningOf(at, { insists });
    const effects = {
      new: "add a new object",
      select: `select ${called(object)}`,
      refine: foreground ? `refine ${called(object)}` : `exclude this from ${called(object)}`,
      none: "do nothing: select an object first",
    };
    panel.hint(`${click} to ${effects[kind]}; drag a box for a new object.`);
    return;
  }
  if (isAdding || selected === null) {
    const start = latest?.paused ? "Paused. " : latest?.finished ? "At the end. " : "";
    const then = latest?.paused && !latest.objects.length ? "; then press Play" : "";
    panel.hint(`${start}${click} an object to track it, or drag a box around it${then}.`);
    return;
  }
  if (!view.frame.boxes.has(selected)) {
    const found = `${called(selected)} is hidden. ${click} it where you see it`;
    panel.hint(isTouch ? `${found}.` : `${found}, or press Esc to deselect.`);
    return;
  }
  const more = isTouch ? "" : " Right-click excludes, Esc deselects.";
  panel.hint(`${click} on or near ${called(selected)} to refine it.${more}`);
}

function toFrame([x, y]) {
  return [
    Math.min((x * latest.frame_width) / latest.width, latest.frame_width - 1),
    Math.min((y * latest.frame_height) / latest.height, latest.frame_height - 1),
  ];
}

function addObject(message) {
  const object = panel.newId();
  if (object === null) {
    panel.problem("At most 254 objects can be tracked; remove one first.");
    return;
  }
  const command = send({ object, ...message });
  if (command === null) return;
  panel.expect(object, command);
  select(object);
  panel.say(`Added object ${object}.`);
}

const input = new Input(view, {
  click(at, how) {
    const { kind, object, foreground } = meaningOf(at, how);
    const [x, y] = toFrame(at);
    if (kind === "none") panel.problem("Select an object first; a background click refines it.");
    if (kind === "select") select(object);
    if (kind === "new") addObject({ type: "click", x, y });
    if (kind === "refine") {
      if (selected !== object) select(object);
      send({ type: "click", object, x, y, foreground });
    }
  },
  box([x1, y1, x2, y2]) {
    addObject({ type: "prompt", box: [...toFrame([x1, y1]), ...toFrame([x2, y2])] });
  },
  hover: showHint,
});

const actions = {
  pause: () => send({ type: byId("pause").dataset.does }),
  undo: () => send({ type: "undo" }),
  redo: () => send({ type: "redo" }),
  add: () => (isAdding ? select(null) : startAdding()),
  reset: () => send({ type: "reset" }),
  help: () => (byId("keys").open ? byId("keys").close() : byId("keys").showModal()),
  download,
};
for (const [id, action] of Object.entries(actions)) byId(id).onclick = action;

function keyAction(event) {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return event.shiftKey ? "redo" : "undo";
    return key === "y" ? "redo" : null;
  }
  return { p: "pause", n: "add", "?": "help" }[key] ?? null;
}

document.onkeydown = (event) => {
  if (event.altKey || event.defaultPrevented || event.target.matches("input.name, select")) return;
  const isPlain = !event.ctrlKey && !event.metaKey;
  const action = keyAction(event);
  if (byId("keys").open && action !== "help") return;
  if (action && !byId(action).disabled) {
    event.preventDefault();
    actions[action]();
  } else if (isPlain && event.key.toLowerCase() === "s") {
    streams.step(event.shiftKey ? -1 : 1);
  } else if (event.key === "Escape") {
    if (!input.cancel()) select(null);
  } else if ((event.key === "Delete" || event.key === "Backspace") && selected !== null) {
    remove(selected);
  } else if (isPlain && /^[1-9]$/.test(event.key) && panel.rows.has(Number(event.key))) {
    select(Number(event.key));
  }
};

async function download() {
  const button = byId("download");
  const said = byId("downloaded");
  button.disabled = true;
  said.textContent = "Preparing the download…";
  try {
    const address = new URL("masks.zip", location.href);
    if (streams.chosen !== undefined) address.searchParams.set("stream", streams.chosen);
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const name = /filename="(.+)"/.exec(answer.headers.get("content-disposition"))[1];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    const count = latest.objects.length;
    said.textContent = `Saved ${name} with ${count} ${count === 1 ? "object" : "objects"}.`;
  } catch (error) {
    said.textContent = `The download failed: ${error.message}. Try again.`;
  } finally {
    button.disabled = false;
  }
}

byId("effect").onchange = () => {
  view.effect = byId("effect").value;
  view.draw();
};

document.body.classList.toggle("touch", isTouch);
panel.show(null);
showHint();
