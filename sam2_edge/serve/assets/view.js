// Draws a frame: the picture, its masks, labels and clicks, and the selected effect.

import { labelPoint } from "./picture.js";

const CELLS = 24; // across a pixelated background
const FILL = 145; // opacity of an object's color, of 255
const MAX_RATIO = 2; // device pixels per CSS pixel that are drawn
const DARK = 0xd0000000; // ABGR, as pixels are stored
const LIGHT = 0xffffffff;

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.effect = "overlay";
    this.selected = null;
    this.box = null; // box being drawn, in pixels of the picture
    this.cursor = null; // keyboard cursor, in pixels of the picture
    this.layer = canvasOf(1, 1);
    this.tiny = canvasOf(1, 1);
    this.frame = null;
    this.picture = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(frame, picture) {
    const { width, height } = frame.header;
    this.layer.width = width;
    this.layer.height = height;
    this.canvas.closest("section, .thumb").style.setProperty("--aspect", width / height);
    this.picture?.close();
    this.frame = frame;
    this.picture = picture;
    this.draw();
  }

  // Shows nothing until the next frame.
  clear() {
    this.picture?.close();
    this.frame = this.picture = this.box = this.cursor = null;
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  // The picture is drawn at the screen's own resolution, so that lines and letters are sharp.
  draw() {
    if (!this.frame) return;
    const { width, height } = this.frame.header;
    const shown = this.canvas.clientWidth || width;
    const ratio = Math.min(window.devicePixelRatio || 1, MAX_RATIO);
    const across = Math.round(shown * ratio);
    const down = Math.round((across * height) / width);
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
    }
    this.px = (ratio * width) / across; // a CSS pixel in pixels of the picture
    const context = this.context;
    context.setTransform(across / width, 0, 0, down / height, 0, 0);
    this.background(width, height);
    if (["cutout", "blur", "pixelate", "spotlight"].includes(this.effect)) {
      this.objects(width, height);
      context.drawImage(this.layer, 0, 0);
    }
    if (this.effect !== "cutout") this.paint(this.effect === "overlay");
    this.marks();
    for (const entry of this.frame.header.objects) this.label(entry);
    this.clicks();
    if (this.box) this.lines(() => this.context.strokeRect(...this.dragged()), true);
    if (this.cursor) this.crosshair();
  }

  background(width, height) {
    const context = this.context;
    if (this.effect === "cutout") {
      context.fillStyle = "#262b36";
      context.fillRect(0, 0, width, height);
      return;
    }
    if (this.effect === "blur" || this.effect === "pixelate") {
      const cells = this.effect === "blur" ? 2 * CELLS : CELLS;
      this.tiny.width = cells;
      this.tiny.height = Math.max(1, Math.round((cells * height) / width));
      const tiny = this.tiny.getContext("2d");
      tiny.drawImage(this.picture, 0, 0, this.tiny.width, this.tiny.height);
      context.imageSmoothingEnabled = this.effect === "blur";
      context.imageSmoothingQuality = "high";
      context.drawImage(this.tiny, 0, 0, width, height);
      context.imageSmoothingEnabled = true;
      return;
    }
    context.drawImage(this.picture, 0, 0, width, height);
    if (this.effect === "spotlight") {
      context.fillStyle = "rgb(0 0 0 / 72%)";
      context.fillRect(0, 0, width, height);
    }
  }

  // Fills the layer with the objects' pixels; everything else is transparent.
  objects(width, height) {
    const context = this.layer.getContext("2d");
    const pixels = context.createImageData(width, height);
    const mask = this.frame.mask;
    for (let i = 0; i < mask.length; i++) pixels.data[4 * i + 3] = mask[i] ? 255 : 0;
    context.globalCompositeOperation = "source-over";
    context.putImageData(pixels, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.drawImage(this.picture, 0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }

  // Draws the objects' edges, light inside and dark outside, so that one of both stands out from
  // any background, and if `filled`, their colored areas.
  paint(filled) {
    const { width, height, objects } = this.frame.header;
    const mask = this.frame.mask;
    const context = this.layer.getContext("2d");
    const pixels = context.createImageData(width, height);
    const packed = new Uint32Array(pixels.data.buffer);
    const fills = new Uint32Array(256);
    for (const { id, color } of objects) {
      const [red, green, blue] = color;
      fills[id] = filled ? (FILL << 24) | (blue << 16) | (green << 8) | red : 0;
    }
    const thin = Math.max(1, Math.round(1.2 * this.px));
    const thick = Math.max(2, Math.round(2.5 * this.px));
    // Whether a pixel within `reach` belongs to something else.
    const isEdge = (i, x, y, reach, id) =>
      x < reach || y < reach || x >= width - reach || y >= height - reach ||
      mask[i - reach] !== id || mask[i + reach] !== id ||
      mask[i - reach * width] !== id || mask[i + reach * width] !== id;
    for (const [id, [x1, y1, x2, y2]] of this.frame.boxes) {
      const light = id === this.selected ? thick : thin;
      const left = Math.max(0, x1 - light);
      const right = Math.min(width, x2 + light);
      for (let y = Math.max(0, y1 - light); y < Math.min(height, y2 + light); y++) {
        for (let x = left, i = y * width + left; x < right; x++, i++) {
          if (mask[i] === id) packed[i] = isEdge(i, x, y, light, id) ? LIGHT : fills[id];
          else if (mask[i] === 0 && touches(mask, i, x, y, light, id, width, height)) packed[i] = DARK;
        }
      }
    }
    context.putImageData(pixels, 0, 0);
    // Hue first: a red object below an orange color must not stay red.
    this.context.globalCompositeOperation = "color";
    this.context.drawImage(this.layer, 0, 0);
    this.context.globalCompositeOperation = "source-over";
    this.context.drawImage(this.layer, 0, 0);
  }

  // Corners around the selected object.
  marks() {
    const box = this.frame.boxes.get(this.selected);
    if (!box) return;
    const gap = 7 * this.px;
    const [x1, y1, x2, y2] = [box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap];
    const long = Math.min(16 * this.px, (x2 - x1) / 3, (y2 - y1) / 3);
    this.lines(() => {
      const context = this.context;
      context.beginPath();
      for (const [x, y, right, down] of [[x1, y1, 1, 1], [x2, y1, -1, 1], [x1, y2, 1, -1], [x2, y2, -1, -1]]) {
        context.moveTo(x + right * long, y);
        context.lineTo(x, y);
        context.lineTo(x, y + down * long);
      }
      context.stroke();
    });
  }

  // Draws lines twice: light on dark.
  lines(stroke, dashed = false) {
    const context = this.context;
    context.lineWidth = 5 * this.px;
    context.strokeStyle = "rgb(0 0 0 / 75%)";
    stroke();
    context.lineWidth = 2.4 * this.px;
    context.strokeStyle = "#fff";
    if (dashed) context.setLineDash([6 * this.px, 4 * this.px]);
    stroke();
    context.setLineDash([]);
  }

  // The object's name, or its number, at the top of its mask.
  label({ id, name, color }) {
    if (!this.frame.boxes.has(id)) return;
    const [center, top] = labelPoint(this.frame, id);
    const context = this.context;
    const size = 13 * this.px;
    const text = name || String(id);
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const wide = Math.min(context.measureText(text).width, 200 * this.px) + 24 * this.px;
    const high = 22 * this.px;
    const { width } = this.frame.header;
    const x = Math.max(2, Math.min(center - wide / 2, width - wide - 2));
    const y = Math.max(2, top - high - 6 * this.px);
    context.fillStyle = id === this.selected ? "#fff" : "rgb(16 18 24 / 88%)";
    context.strokeStyle = id === this.selected ? "#101218" : "rgb(255 255 255 / 70%)";
    context.lineWidth = this.px;
    context.beginPath();
    context.roundRect(x, y, wide, high, 5 * this.px);
    context.fill();
    context.stroke();
    context.fillStyle = `rgb(${color.join(" ")})`;
    context.beginPath();
    context.roundRect(x + 5 * this.px, y + 6 * this.px, 10 * this.px, 10 * this.px, 2 * this.px);
    context.fill();
    context.fillStyle = id === this.selected ? "#101218" : "#fff";
    context.fillText(text, x + 19 * this.px, y + high / 2, 200 * this.px);
  }

  // The clicks of the selected object on this frame: plus and minus signs.
  clicks() {
    const { objects, width, height, frame_width, frame_height } = this.frame.header;
    const entry = objects.find((o) => o.id === this.selected);
    for (const [x, y, sign] of entry?.clicks ?? []) {
      const at = [(x * width) / frame_width, (y * height) / frame_height];
      this.sign(at, sign === 1);
    }
  }

  sign([x, y], isPlus) {
    const context = this.context;
    const arm = 3.5 * this.px;
    context.beginPath();
    context.arc(x, y, 7.5 * this.px, 0, 2 * Math.PI);
    context.fillStyle = isPlus ? "#0b5fd8" : "#b3261e";
    context.fill();
    context.lineWidth = 1.6 * this.px;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    if (isPlus) {
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
    }
    context.stroke();
  }

  dragged() {
    const [x1, y1, x2, y2] = this.box;
    return [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1)];
  }

  crosshair() {
    const [x, y] = this.cursor;
    const arm = 14 * this.px;
    const hole = 4 * this.px;
    this.lines(() => {
      const context = this.context;
      context.beginPath();
      for (const way of [-1, 1]) {
        context.moveTo(x + way * hole, y);
        context.lineTo(x + way * arm, y);
        context.moveTo(x, y + way * hole);
        context.lineTo(x, y + way * arm);
      }
      context.stroke();
    });
  }
}

function touches(mask, i, x, y, reach, id, width, height) {
  return (
    (x >= reach && mask[i - reach] === id) ||
    (x < width - reach && mask[i + reach] === id) ||
    (y >= reach && mask[i - reach * width] === id) ||
    (y < height - reach && mask[i + reach * width] === id)
  );
}
