// The controls beside the picture: state of the loop, list of objects, downloads.

const MAX_OBJECT = 254;
const SETTLED = 1500; // milliseconds after an answer within which a frame must show its effect

const byId = (id) => document.getElementById(id);
export const isTouch = matchMedia("(pointer: coarse)").matches;

export class Panel {
  // `on` has the functions select(id), remove(id) and rename(id, name).
  constructor(on) {
    this.on = on;
    this.rows = new Map(); // object id -> list item
    this.waiting = new Map(); // number of a command -> id of the object that it adds
    this.selected = null;
    this.said = "";
  }

  setStatus(state, text) {
    const status = byId("status");
    status.dataset.state = state;
    if (status.textContent !== text) status.textContent = text;
  }

  problem(text) {
    byId("problem").textContent = text;
    byId("problem").hidden = !text;
  }

  // Tells a screen reader what happened.
  say(text) {
    byId("said").textContent = text;
  }

  hint(text) {
    if (byId("hint").textContent !== text) byId("hint").textContent = text;
  }

  waitFor(text) {
    byId("waiting").hidden = !text;
    byId("waiting-text").textContent = text;
  }

  // Controls that cannot act are disabled: `header` is null without a connection or a frame.
  show(header) {
    const can = (id, able) => { byId(id).disabled = !able; };
    for (const id of ["pause", "add", "download", "effect"]) can(id, header !== null);
    for (const radio of document.getElementsByName("sign")) radio.disabled = header === null;
    byId("objects").inert = header === null;
    can("undo", Boolean(header?.undo));
    can("redo", Boolean(header?.redo));
    can("reset", Boolean(header?.objects.length));
    if (!header) return;
    byId("undo").title = header.undo ? `Undo ${header.undo} (Ctrl+Z)` : "Nothing to undo";
    byId("redo").title = header.redo ? `Redo ${header.redo} (Ctrl+Shift+Z)` : "Nothing to redo";
    const still = header.paused || header.finished;
    this.setStatus("live", header.finished ? "at the end" : header.paused ? "paused" : "live");
    const rate = (value, digits) => (still || !value ? "–" : value.toFixed(digits));
    byId("frame").textContent = header.frame;
    byId("fps").textContent = rate(header.fps, 1);
    byId("latency").textContent = still || !header.latency_ms ? "–" : `${rate(header.latency_ms, 0)} ms`;
    byId("dropped").textContent = header.dropped;
    const pause = byId("pause");
    pause.textContent = header.finished ? "Replay" : header.paused ? "Play" : "Pause";
    pause.dataset.does = header.finished ? "replay" : header.paused ? "resume" : "pause";
    byId("empty").hidden = header.objects.length + this.waiting.size > 0;
    this.list(header.objects);
  }

  list(objects) {
    const ids = new Set(objects.map((o) => o.id));
    for (const [id, row] of this.rows) {
      if (!ids.has(id) && !row.dataset.pending) this.drop(id);
    }
    for (const entry of objects) this.update(this.rows.get(entry.id) ?? this.add(entry.id), entry);
  }

  drop(id) {
    const row = this.rows.get(id);
    const hadFocus = row.contains(document.activeElement);
    row.remove();
    this.rows.delete(id);
    if (this.selected === id) this.on.select(null);
    if (hadFocus) byId("add").focus();
  }

  add(id) {
    const row = byId("object").content.firstElementChild.cloneNode(true);
    row.dataset.object = id;
    row.querySelector(".number").textContent = id;
    row.querySelector(".pick").onclick = () => this.on.select(this.selected === id ? null : id);
    row.querySelector(".remove").onclick = () => this.on.remove(id);
    const name = row.querySelector(".name");
    name.placeholder = `object ${id}`;
    name.setAttribute("aria-label", `Name of object ${id}`);
    name.onchange = () => this.on.rename(id, name.value.trim());
    name.onkeydown = (event) => {
      if (event.key === "Enter" || event.key === "Escape") name.blur();
    };
    const next = [...this.rows.keys()].filter((other) => other > id).sort((a, b) => a - b)[0];
    byId("objects").insertBefore(row, this.rows.get(next) ?? null);
    this.rows.set(id, row);
    this.mark(id);
    return row;
  }

  update(row, entry) {
    delete row.dataset.pending;
    row.classList.toggle("absent", !entry.present);
    row.dataset.present = entry.present;
    row.querySelector(".swatch").style.background = `rgb(${entry.color.join(" ")})`;
    const sure = Math.round(100 * Math.min(Math.max(entry.iou ?? 0, 0), 1));
    const state = row.querySelector(".state");
    state.textContent = entry.present ? `${sure}% sure` : "hidden";
    state.title = `predicted IoU ${entry.iou}, object score ${entry.score}`;
    const name = row.querySelector(".name");
    if (document.activeElement !== name) name.value = entry.name;
    const called = entry.name || `object ${entry.id}`;
    row.querySelector(".pick").setAttribute("aria-label", `Select ${called}`);
    const remove = row.querySelector(".remove");
    remove.title = `Remove ${called}`;
    remove.setAttribute("aria-label", `Remove ${called}`);
  }

  select(id, isAdding) {
    const before = this.selected;
    this.selected = id;
    for (const other of [before, id]) if (other !== null) this.mark(other);
    byId("add").setAttribute("aria-pressed", String(isAdding));
  }

  mark(id) {
    const row = this.rows.get(id);
    if (!row) return;
    row.classList.toggle("selected", id === this.selected);
    row.querySelector(".pick").setAttribute("aria-pressed", String(id === this.selected));
  }

  newId() {
    for (let id = 1; id <= MAX_OBJECT; id++) {
      if (!this.rows.has(id)) return id;
    }
    return null;
  }

  // The row of a new object appears at once; it goes if the command fails.
  expect(id, command) {
    if (this.rows.has(id)) return;
    const row = this.add(id);
    row.dataset.pending = "yes";
    row.querySelector(".state").textContent = "…";
    this.waiting.set(command, id);
  }

  settle(command, failed) {
    const id = this.waiting.get(command);
    if (id === undefined) return;
    this.waiting.delete(command);
    const end = () => {
      const row = this.rows.get(id);
      if (row?.dataset.pending && ![...this.waiting.values()].includes(id)) this.drop(id);
    };
    if (failed) end();
    else setTimeout(end, SETTLED);
  }

  // Without a connection no answer comes.
  settleAll() {
    for (const command of [...this.waiting.keys()]) this.settle(command, true);
  }
}
