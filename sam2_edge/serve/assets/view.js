// Draws a frame: the image, its masks and the selected effect.

const CELLS = 24; // across a pixelated background

// Decodes a frame message from the server; serve/frame_message.py documents its layout.
export function decode(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const end = 4 + size + 4 * header.runs;
  const runs = new Uint32Array(buffer.slice(4 + size, end));
  const mask = new Uint8Array(header.width * header.height);
  let at = 0;
  for (const run of runs) {
    const length = run & 0xffffff;
    const value = run >>> 24;
    if (value) mask.fill(value, at, at + length);
    at += length;
  }
  return { header, mask, jpeg: new Blob([new Uint8Array(buffer, end)], { type: "image/jpeg" }) };
}

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
    this.box = null; // box being dragged, in canvas pixels
    this.layer = canvasOf(1, 1);
    this.tiny = canvasOf(1, 1);
    this.shown = null;
  }

  show(frame, picture) {
    const { width, height } = frame.header;
    for (const canvas of [this.canvas, this.layer]) {
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
    }
    this.canvas.style.setProperty("--aspect", width / height);
    this.shown?.picture.close();
    this.shown = { frame, picture };
    this.draw();
  }

  draw() {
    if (!this.shown) return;
    const { frame, picture } = this.shown;
    const { width, height } = frame.header;
    const context = this.context;
    context.globalCompositeOperation = "source-over";
    this.background(picture, width, height);
    if (["cutout", "blur", "pixelate", "spotlight"].includes(this.effect)) {
      this.objects(frame, picture);
      context.drawImage(this.layer, 0, 0);
    }
    if (this.effect !== "cutout") this.paint(frame, this.effect === "overlay");
    if (this.box) this.frameBox();
  }

  background(picture, width, height) {
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
      this.tiny.getContext("2d").drawImage(picture, 0, 0, this.tiny.width, this.tiny.height);
      context.imageSmoothingEnabled = this.effect === "blur";
      context.imageSmoothingQuality = "high";
      context.drawImage(this.tiny, 0, 0, width, height);
      context.imageSmoothingEnabled = true;
      return;
    }
    context.drawImage(picture, 0, 0, width, height);
    if (this.effect === "spotlight") {
      context.fillStyle = "rgb(0 0 0 / 72%)";
      context.fillRect(0, 0, width, height);
    }
  }

  // Fills the layer with the objects' pixels; everything else is transparent.
  objects(frame, picture) {
    const { width, height } = frame.header;
    const context = this.layer.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < frame.mask.length; i++) pixels.data[4 * i + 3] = frame.mask[i] ? 255 : 0;
    context.globalCompositeOperation = "source-over";
    context.putImageData(pixels, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.drawImage(picture, 0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }

  // Draws the objects' outlines and, if `filled`, their colored areas.
  paint(frame, filled) {
    const { width, height, objects } = frame.header;
    const mask = frame.mask;
    const colors = new Map(objects.map((o) => [o.id, o.color]));
    const context = this.layer.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const id = mask[i];
        if (!id) continue;
        const edge =
          x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
          mask[i - 1] !== id || mask[i + 1] !== id || mask[i - width] !== id ||
          mask[i + width] !== id;
        if (!edge && !filled) continue;
        const [red, green, blue] = colors.get(id) ?? [255, 255, 255];
        pixels.data[4 * i] = red;
        pixels.data[4 * i + 1] = green;
        pixels.data[4 * i + 2] = blue;
        pixels.data[4 * i + 3] = edge ? 255 : 115;
      }
    }
    context.putImageData(pixels, 0, 0);
    this.context.drawImage(this.layer, 0, 0);
  }

  frameBox() {
    const [x1, y1, x2, y2] = this.box;
    this.context.lineWidth = 2;
    this.context.setLineDash([6, 4]);
    this.context.strokeStyle = "#fff";
    this.context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    this.context.setLineDash([]);
  }
}
