// The page: a WebSocket to the server, clicks and boxes, and the list of objects.

import { View, decode } from "/view.js";

const DRAG = 6; // pixels on the screen from which on a click is a box
const SILENCE = 12000; // milliseconds without a word after which the connection is given up

const get = (id) => document.getElementById(id);
const view = new View(get("view"));
const rows = new Map(); // object id -> list item

let socket = null;
let latest = null; // the last frame's header
let selected = null; // object that clicks refine, or null for a new one
let sent = 0;
let heard = 0;
let retry = 500;
let points = null; // clicks on one object and frame so far
let press = null;
let drawing = false;
let waiting = null; // the newest message that is not drawn yet

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    retry = 500;
    heard = Date.now();
  };
  socket.onmessage = (event) => {
    heard = Date.now();
    if (typeof event.data === "string") answered(JSON.parse(event.data));
    else arrived(event.data);
  };
  socket.onclose = (event) => {
    say("lost", event.code === 1013 ? "too many viewers" : "reconnecting");
    setTimeout(connect, retry);
    retry = Math.min(2 * retry, 8000);
  };
}

setInterval(() => {
  if (socket.readyState === WebSocket.OPEN && Date.now() - heard > SILENCE) socket.close();
}, 2000);

function send(message) {
  if (socket.readyState !== WebSocket.OPEN) {
    problem("There is no connection to the device.");
    return;
  }
  problem("");
  socket.send(JSON.stringify({ id: ++sent, ...message }));
}

function answered(message) {
  if (message.type === "error") {
    problem(message.message);
    forgetPoints();
  }
  if (message.type === "alive" && latest) say("live", message.ended ? "ended" : "no new frames");
}

// A browser that is slower than the stream leaves frames out, but never the last one.
async function arrived(data) {
  waiting = data;
  if (drawing) return;
  drawing = true;
  try {
    while (waiting !== null) {
      const frame = decode(waiting);
      waiting = null;
      const picture = await createImageBitmap(frame.jpeg);
      latest = frame.header;
      view.show(frame, picture);
      tell(latest);
    }
  } finally {
    drawing = false;
  }
}

function say(state, text) {
  const status = get("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

function problem(text) {
  get("problem").textContent = text;
  get("problem").hidden = !text;
}

function tell(header) {
  say("live", header.ended ? "ended" : header.paused ? "paused" : "live");
  get("fps").textContent = header.fps.toFixed(1);
  get("age").textContent = `${Math.round(header.age_ms)} ms`;
  get("dropped").textContent = header.dropped;
  get("pause").setAttribute("aria-pressed", String(header.paused));
  get("pause").textContent = header.paused ? "Resume" : "Pause";
  get("view").dataset.frame = header.frame;
  get("empty").hidden = header.objects.length > 0;
  const ids = new Set(header.objects.map((o) => o.id));
  for (const [id, row] of rows) {
    if (!ids.has(id) && !row.dataset.pending) {
      row.remove();
      rows.delete(id);
      if (points.object === id) forgetPoints();
      if (selected === id) select(null);
    }
  }
  for (const found of header.objects) refresh(rows.get(found.id) ?? addRow(found.id), found);
}

function addRow(id) {
  const row = get("object").content.firstElementChild.cloneNode(true);
  row.dataset.object = id;
  row.querySelector(".pick").onclick = () => select(id);
  row.querySelector(".pick").title = `Refine object ${id}`;
  row.querySelector(".remove").onclick = () => send({ type: "remove", object: id });
  const name = row.querySelector(".name");
  name.placeholder = `object ${id}`;
  name.setAttribute("aria-label", `Name of object ${id}`);
  name.onchange = () => send({ type: "name", object: id, name: name.value });
  get("objects").append(row);
  rows.set(id, row);
  return row;
}

function refresh(row, found) {
  delete row.dataset.pending;
  row.classList.toggle("absent", !found.present);
  row.dataset.present = found.present;
  row.querySelector(".swatch").style.background = `rgb(${found.color.join(" ")})`;
  row.querySelector(".state").textContent = found.present
    ? `${Math.round(100 * Math.min(Math.max(found.iou, 0), 1))} %`
    : "not seen";
  row.querySelector(".state").title = `predicted IoU ${found.iou}, object score ${found.score}`;
  const name = row.querySelector(".name");
  if (document.activeElement !== name) name.value = found.name;
}

function select(id) {
  selected = id;
  for (const [other, row] of rows) {
    row.querySelector(".pick").setAttribute("aria-pressed", String(other === id));
  }
  get("add").setAttribute("aria-pressed", String(id === null));
  get("hint").textContent =
    id === null
      ? "Click an object to follow it, or drag a box around it."
      : `Clicks refine object ${id}: left for what it is, right for what it is not.`;
}

function newId() {
  for (let id = 1; id < 256; id++) {
    if (!rows.has(id)) return id;
  }
  return null;
}

// From the screen to pixels of the picture that is shown, and of the device's own frame.
function onPicture(event) {
  const canvas = view.canvas;
  const area = canvas.getBoundingClientRect();
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  return [
    clip(((event.clientX - area.left) / area.width) * canvas.width, canvas.width - 1),
    clip(((event.clientY - area.top) / area.height) * canvas.height, canvas.height - 1),
  ];
}

function onFrame([x, y]) {
  return [
    Math.min((x * latest.frame_width) / latest.width, latest.frame_width - 1),
    Math.min((y * latest.frame_height) / latest.height, latest.frame_height - 1),
  ];
}

function prompt(message) {
  const object = selected ?? newId();
  if (object === null) {
    problem("255 objects are the most; remove one first.");
    return;
  }
  send({ type: "prompt", object, ...message });
  if (!rows.has(object)) refreshLater(object);
  select(object);
}

// The row of a new object stands there at once, so that the next click refines it.
function refreshLater(id) {
  const row = addRow(id);
  row.dataset.pending = "yes";
  row.querySelector(".state").textContent = "…";
  setTimeout(() => delete row.dataset.pending, 3000); // it was refused: the next frame takes it away
}

function forgetPoints() {
  points = { frame: -1, object: null, coords: [], labels: [] };
}

function click(at, label) {
  if (selected === null && label === 0) {
    problem("Choose an object first: this click says what does not belong to it.");
    return;
  }
  const object = selected ?? newId();
  // Further clicks on the same frame go together with those before; on another frame the model
  // remembers what it was told.
  if (points.frame !== latest.frame || points.object !== object) {
    points = { frame: latest.frame, object, coords: [], labels: [] };
  }
  points.coords.push(onFrame(at));
  points.labels.push(label);
  prompt({ points: points.coords, labels: points.labels });
}

const canvas = get("view");
canvas.onpointerdown = (event) => {
  // A second finger, or the middle button, is no click.
  if (!latest || press || !event.isPrimary || event.button === 1) return;
  canvas.setPointerCapture(event.pointerId);
  press = { at: onPicture(event), x: event.clientX, y: event.clientY, button: event.button };
};
canvas.onpointermove = (event) => {
  if (!press || press.button !== 0 || !event.isPrimary) return;
  const far = Math.hypot(event.clientX - press.x, event.clientY - press.y) > DRAG;
  if (far || view.box) {
    const to = onPicture(event);
    view.box = [...press.at, ...to];
    view.draw();
  }
};
canvas.onpointerup = (event) => {
  if (!press || !event.isPrimary) return;
  const from = press.at;
  const to = onPicture(event);
  const boxed = view.box !== null;
  const other = press.button === 2;
  press = null;
  view.box = null;
  if (boxed) {
    const [ax, ay] = onFrame(from);
    const [bx, by] = onFrame(to);
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

get("add").onclick = () => select(null);
get("pause").onclick = () => send({ type: latest?.paused ? "resume" : "pause" });
get("reset").onclick = () => {
  send({ type: "reset" });
  forgetPoints();
  select(null);
};
get("effect").onchange = () => {
  view.effect = get("effect").value;
  view.draw();
};

forgetPoints();
connect();
