// The page: WebSocket connection, clicks and boxes, list of objects.

import { View, decode } from "./view.js";

const DRAG = 6; // screen pixels; a longer drag is a box, a shorter one a click
const SILENCE = 12000; // milliseconds without a message after which the connection counts as lost

const byId = (id) => document.getElementById(id);
const view = new View(byId("view"));
const rows = new Map(); // object id -> list item

let socket = null;
let latest = null; // header of the frame on display
let selected = null; // id of the object that clicks refine; null if clicks add objects
let lastId = 0;
let lastHeard = 0;
let retry = 500;
let points = null; // clicks so far on the current object and frame
let press = null;
let isDrawing = false;
let pending = null; // latest message not drawn yet

function connect() {
  // Relative to the page, which a proxy may show under a path of its own.
  const address = new URL("ws", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    retry = 500;
    lastHeard = Date.now();
  };
  socket.onmessage = (event) => {
    lastHeard = Date.now();
    if (typeof event.data === "string") onAnswer(JSON.parse(event.data));
    else onFrame(event.data);
  };
  socket.onclose = (event) => {
    setStatus("lost", event.code === 1013 ? "too many viewers, retrying" : "reconnecting");
    setTimeout(connect, retry);
    retry = Math.min(2 * retry, 8000);
  };
}

setInterval(() => {
  if (socket.readyState === WebSocket.OPEN && Date.now() - lastHeard > SILENCE) socket.close();
}, 2000);

function send(message) {
  if (socket.readyState !== WebSocket.OPEN) {
    showProblem("Not connected to the device.");
    return;
  }
  showProblem("");
  socket.send(JSON.stringify({ id: ++lastId, ...message }));
}

function onAnswer(message) {
  if (message.type === "error") {
    showProblem(message.message);
    forgetPoints();
  }
  if (message.type === "alive" && latest) setStatus("live", message.ended ? "ended" : "no new frames");
}

// A browser slower than the stream skips frames, but never the latest one.
async function onFrame(data) {
  pending = data;
  if (isDrawing) return;
  isDrawing = true;
  try {
    while (pending !== null) {
      const frame = decode(pending);
      pending = null;
      const picture = await createImageBitmap(frame.jpeg);
      latest = frame.header;
      view.show(frame, picture);
      showState(latest);
    }
  } finally {
    isDrawing = false;
  }
}

function setStatus(state, text) {
  const status = byId("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

function showState(header) {
  setStatus("live", header.ended ? "ended" : header.paused ? "paused" : "live");
  byId("fps").textContent = header.fps.toFixed(1);
  byId("latency").textContent = `${Math.round(header.latency_ms)} ms`;
  byId("dropped").textContent = header.dropped;
  byId("pause").setAttribute("aria-pressed", String(header.paused));
  byId("pause").textContent = header.paused ? "Resume" : "Pause";
  byId("view").dataset.frame = header.frame;
  byId("empty").hidden = header.objects.length > 0;
  const ids = new Set(header.objects.map((o) => o.id));
  for (const [id, row] of rows) {
    if (!ids.has(id) && !row.dataset.pending) {
      row.remove();
      rows.delete(id);
      if (points.object === id) forgetPoints();
      if (selected === id) select(null);
    }
  }
  for (const entry of header.objects) updateRow(rows.get(entry.id) ?? addRow(entry.id), entry);
}

function addRow(id) {
  const row = byId("object").content.firstElementChild.cloneNode(true);
  row.dataset.object = id;
  row.querySelector(".pick").onclick = () => select(id);
  row.querySelector(".pick").title = `Refine object ${id}`;
  row.querySelector(".remove").onclick = () => send({ type: "remove", object: id });
  const name = row.querySelector(".name");
  name.placeholder = `object ${id}`;
  name.setAttribute("aria-label", `Name of object ${id}`);
  name.onchange = () => send({ type: "name", object: id, name: name.value });
  byId("objects").append(row);
  rows.set(id, row);
  return row;
}

function updateRow(row, entry) {
  delete row.dataset.pending;
  row.classList.toggle("absent", !entry.present);
  row.dataset.present = entry.present;
  row.querySelector(".swatch").style.background = `rgb(${entry.color.join(" ")})`;
  row.querySelector(".state").textContent = entry.present
    ? `${Math.round(100 * Math.min(Math.max(entry.iou, 0), 1))}%`
    : "hidden";
  row.querySelector(".state").title = `predicted IoU ${entry.iou}, object score ${entry.score}`;
  const name = row.querySelector(".name");
  if (document.activeElement !== name) name.value = entry.name;
}

function select(id) {
  selected = id;
  for (const [other, row] of rows) {
    row.querySelector(".pick").setAttribute("aria-pressed", String(other === id));
  }
  byId("add").setAttribute("aria-pressed", String(id === null));
  byId("hint").textContent =
    id === null
      ? "Click an object to track it, or drag a box around it."
      : `Clicks refine object ${id}; right-click adds a background point.`;
}

function newId() {
  for (let id = 1; id < 256; id++) {
    if (!rows.has(id)) return id;
  }
  return null;
}

// Screen position to pixels of the canvas, and canvas pixels to pixels of the camera's frame.
function toCanvas(event) {
  const canvas = view.canvas;
  const area = canvas.getBoundingClientRect();
  const clip = (value, max) => Math.min(Math.max(value, 0), max);
  return [
    clip(((event.clientX - area.left) / area.width) * canvas.width, canvas.width - 1),
    clip(((event.clientY - area.top) / area.height) * canvas.height, canvas.height - 1),
  ];
}

function toFrame([x, y]) {
  return [
    Math.min((x * latest.frame_width) / latest.width, latest.frame_width - 1),
    Math.min((y * latest.frame_height) / latest.height, latest.frame_height - 1),
  ];
}

function prompt(message) {
  const object = selected ?? newId();
  if (object === null) {
    showProblem("At most 255 objects can be tracked; remove one first.");
    return;
  }
  send({ type: "prompt", object, ...message });
  if (!rows.has(object)) addPendingRow(object);
  select(object);
}

// The row of a new object appears immediately, so that the next click refines the object.
function addPendingRow(id) {
  const row = addRow(id);
  row.dataset.pending = "yes";
  row.querySelector(".state").textContent = "…";
  // If the prompt fails, the next frame after this delay removes the row.
  setTimeout(() => delete row.dataset.pending, 3000);
}

function forgetPoints() {
  points = { frame: -1, object: null, coords: [], labels: [] };
}

function click(at, label) {
  if (selected === null && label === 0) {
    showProblem("Select an object first; a background click refines it.");
    return;
  }
  const object = selected ?? newId();
  // Clicks on the same frame are sent together; earlier frames' clicks are in the model's memory.
  if (points.frame !== latest.frame || points.object !== object) {
    points = { frame: latest.frame, object, coords: [], labels: [] };
  }
  points.coords.push(toFrame(at));
  points.labels.push(label);
  prompt({ points: points.coords, labels: points.labels });
}

const canvas = byId("view");
canvas.onpointerdown = (event) => {
  // Ignore a second finger and the middle button.
  if (!latest || press || !event.isPrimary || event.button === 1) return;
  canvas.setPointerCapture(event.pointerId);
  press = { at: toCanvas(event), x: event.clientX, y: event.clientY, button: event.button };
};
canvas.onpointermove = (event) => {
  if (!press || press.button !== 0 || !event.isPrimary) return;
  const far = Math.hypot(event.clientX - press.x, event.clientY - press.y) > DRAG;
  if (far || view.box) {
    const to = toCanvas(event);
    view.box = [...press.at, ...to];
    view.draw();
  }
};
canvas.onpointerup = (event) => {
  if (!press || !event.isPrimary) return;
  const from = press.at;
  const to = toCanvas(event);
  const boxed = view.box !== null;
  const other = press.button === 2;
  press = null;
  view.box = null;
  if (boxed) {
    const [ax, ay] = toFrame(from);
    const [bx, by] = toFrame(to);
    const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
    forgetPoints();
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) prompt({ box });
    return;
  }
  const sign = Number(document.querySelector("input[name=sign]:checked").value);
  click(to, other ? 0 : sign);
};
canvas.onpointercancel = () => {
  press = null;
  view.box = null;
};
canvas.oncontextmenu = (event) => event.preventDefault();

byId("add").onclick = () => select(null);
byId("pause").onclick = () => send({ type: latest?.paused ? "resume" : "pause" });
byId("reset").onclick = () => {
  send({ type: "reset" });
  forgetPoints();
  select(null);
};
byId("effect").onchange = () => {
  view.effect = byId("effect").value;
  view.draw();
};

forgetPoints();
connect();
