// Several streams side by side: a small picture of each, of which one is shown large.

import { Connection } from "./connection.js";
import { decode } from "./picture.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);

// The small picture of one stream. It has a connection of its own, unless the stream is large.
class Small {
  constructor(name, choose) {
    this.name = name;
    this.button = byId("stream").content.firstElementChild.cloneNode(true);
    this.button.dataset.stream = name;
    this.button.title = `Show ${name} (S for the next one)`;
    this.button.querySelector(".called").textContent = name;
    this.button.onclick = () => choose(name);
    this.view = new View(this.button.querySelector("canvas"));
    this.connection = null;
    this.pending = null;
    this.isDrawing = false;
  }

  setState(state) {
    this.button.dataset.state = state;
  }

  connect() {
    this.connection ??= new Connection(this.name, {
      opened: () => this.setState("connecting"),
      lost: () => this.setState("lost"),
      frame: (data) => this.draw(data),
      alive: () => this.setState("stalled"),
      error: () => {},
      done: () => {},
      streams: () => {},
    });
  }

  disconnect() {
    this.connection?.close();
    this.connection = null;
  }

  async draw(data) {
    this.pending = data;
    if (this.isDrawing) return;
    this.isDrawing = true;
    try {
      while (this.pending !== null) {
        const frame = decode(this.pending);
        this.pending = null;
        this.view.show(frame, await createImageBitmap(frame.jpeg));
        this.button.dataset.frame = frame.header.frame;
        this.setState("live");
      }
    } finally {
      this.isDrawing = false;
    }
  }
}

export class Streams {
  // `choose` is called with the name of the stream that is to be large.
  constructor(choose) {
    this.choose = choose;
    this.small = new Map(); // by name
    this.chosen = undefined; // name of the large one; a single stream has none
  }

  // Shows a small picture for each name, the one of `chosen` marked.
  show(names, chosen) {
    this.chosen = chosen;
    if (names.join("\n") !== [...this.small.keys()].join("\n")) {
      for (const small of this.small.values()) small.disconnect();
      this.small = new Map(names.map((name) => [name, new Small(name, this.choose)]));
      byId("streams").replaceChildren(...[...this.small.values()].map((small) => small.button));
    }
    byId("streams").hidden = names.length < 2;
    document.body.classList.toggle("several", names.length > 1);
    for (const [name, small] of this.small) {
      small.button.setAttribute("aria-pressed", String(name === chosen));
      if (name === chosen || names.length < 2) small.disconnect();
      else small.connect();
    }
  }

  // The large picture's frames are those of its small one, too.
  drawChosen(data) {
    if (this.small.size > 1) this.small.get(this.chosen)?.draw(data);
  }

  // Chooses the next stream, or the one before.
  step(by) {
    const names = [...this.small.keys()];
    if (names.length < 2) return;
    const next = (names.indexOf(this.chosen) + by + names.length) % names.length;
    this.choose(names[next]);
  }
}
