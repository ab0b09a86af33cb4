// Mouse, touch and keys on the picture: they become clicks and boxes in pixels of the picture.

const DRAG = 6; // screen pixels; a longer drag is a box, a shorter one a click
const STEP = 0.02; // of the smaller side, per press of an arrow key
const FINE = 0.0025; // the same, with Shift

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Input {
  // `on` has the functions click(at, { background, insists }), box(corners) and hover(at, event).
  constructor(view, on) {
    this.view = view;
    this.on = on;
    this.press = null;
    const canvas = view.canvas;
    canvas.onpointerdown = (event) => this.down(event);
    canvas.onpointermove = (event) => this.move(event);
    canvas.onpointerup = (event) => this.up(event);
    canvas.onpointercancel = () => this.cancel();
    canvas.onpointerleave = () => this.on.hover(null, false);
    canvas.oncontextmenu = (event) => event.preventDefault();
    canvas.onkeydown = (event) => this.key(event);
    canvas.onblur = () => {
      view.cursor = null;
      this.cancel();
    };
  }

  // Screen position to pixels of the picture.
  at(event) {
    const { width, height } = this.view.frame.header;
    const area = this.view.canvas.getBoundingClientRect();
    return this.clipped([
      ((event.clientX - area.left) / area.width) * width,
      ((event.clientY - area.top) / area.height) * height,
    ]);
  }

  clipped([x, y]) {
    const { width, height } = this.view.frame.header;
    return [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  }

  down(event) {
    // Ignore a second finger and the middle button.
    if (!this.view.frame || this.press || !event.isPrimary || event.button === 1) return;
    this.view.canvas.setPointerCapture(event.pointerId);
    this.view.cursor = null;
    this.view.box = null;
    this.press = { at: this.at(event), x: event.clientX, y: event.clientY, button: event.button };
  }

  move(event) {
    if (!this.view.frame || !event.isPrimary) return;
    if (!this.press) {
      this.on.hover(this.at(event), event.shiftKey);
      return;
    }
    if (this.press.button !== 0) return;
    const far = Math.hypot(event.clientX - this.press.x, event.clientY - this.press.y) > DRAG;
    if (far || this.view.box) this.stretch(this.press.at, this.at(event));
  }

  up(event) {
    if (!this.press || !event.isPrimary) return;
    const { button } = this.press;
    this.press = null;
    if (this.view.box) this.finish();
    else this.on.click(this.at(event), { background: button === 2, insists: event.shiftKey });
  }

  stretch(from, to) {
    this.view.box = [...from, ...to];
    this.view.draw();
  }

  finish() {
    const [ax, ay, bx, by] = this.view.box;
    this.cancel();
    const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) this.on.box(box);
  }

  // Drops what is being drawn; returns whether there was something.
  cancel() {
    const was = this.view.box !== null;
    this.press = null;
    this.view.box = null;
    this.view.draw();
    return was;
  }

  key(event) {
    if (!this.view.frame || event.ctrlKey || event.metaKey || event.altKey) return;
    const { view } = this;
    if (event.key in ARROWS) {
      this.steer(ARROWS[event.key], event.shiftKey);
    } else if ((event.key === "Enter" || event.key === " ") && view.cursor) {
      if (view.box) this.finish();
      else this.on.click(view.cursor, { background: event.shiftKey, insists: false });
    } else if (event.key.toLowerCase() === "b" && view.cursor) {
      if (view.box) this.finish();
      else this.stretch(view.cursor, view.cursor);
    } else {
      return;
    }
    event.preventDefault();
  }

  steer([right, down], isFine) {
    const { view } = this;
    const { width, height } = view.frame.header;
    if (!view.cursor) {
      view.cursor = [width / 2, height / 2];
    } else {
      const step = Math.max(1, (isFine ? FINE : STEP) * Math.min(width, height));
      view.cursor = this.clipped([view.cursor[0] + right * step, view.cursor[1] + down * step]);
    }
    if (view.box) view.box = [view.box[0], view.box[1], ...view.cursor];
    view.draw();
    this.on.hover(view.cursor, false);
  }
}
