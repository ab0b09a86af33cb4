// Frames as they come from the server: decoding, and which object is where.

// Decodes a frame message; serve/frame_message.py documents its layout. `boxes` are x1, y1, x2, y2
// around each mask, the second corner exclusive, and `rows` the numbers of its pixels by row.
export function decode(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const end = 4 + size + 4 * header.runs;
  const runs = new Uint32Array(buffer.slice(4 + size, end));
  const mask = new Uint8Array(header.width * header.height);
  const boxes = new Map();
  const rows = new Map();
  let at = 0;
  for (const run of runs) {
    const length = run & 0xffffff;
    const value = run >>> 24;
    if (value) {
      mask.fill(value, at, at + length);
      extend(boxes, value, at, length, header.width);
      if (!rows.has(value)) rows.set(value, new Uint32Array(header.height));
      rows.get(value)[Math.floor(at / header.width)] += length;
    }
    at += length;
  }
  const jpeg = new Blob([new Uint8Array(buffer, end)], { type: "image/jpeg" });
  return { header, mask, boxes, rows, jpeg };
}

function extend(boxes, id, start, length, width) {
  const last = start + length - 1;
  const top = Math.floor(start / width);
  const bottom = Math.floor(last / width) + 1;
  const wraps = bottom - top > 1; // over the end of a row, so both sides are touched
  const box = boxes.get(id) ?? [Infinity, Infinity, 0, 0];
  boxes.set(id, [
    Math.min(box[0], wraps ? 0 : start % width),
    Math.min(box[1], top),
    Math.max(box[2], wraps ? width : (last % width) + 1),
    Math.max(box[3], bottom),
  ]);
}

// Where an object's label belongs: above the first wide row of its mask, not above a speck.
export function labelPoint(frame, id) {
  const rows = frame.rows.get(id);
  const { width } = frame.header;
  const wide = Math.max(...rows) / 4;
  const y = rows.findIndex((length) => length >= wide);
  let left = rows[y] / 2; // until the middle one of its pixels
  let x = 0;
  for (; x < width && left > 0; x++) left -= frame.mask[y * width + x] === id;
  return [x, y];
}

// Number of the object at a point of the picture, 0 for none.
export function objectAt(frame, [x, y]) {
  const { width, height } = frame.header;
  const column = Math.min(Math.floor(x), width - 1);
  const row = Math.min(Math.floor(y), height - 1);
  return frame.mask[row * width + column];
}

// Whether a point is at an object: within its box and half its size around it.
export function isNear(frame, id, [x, y]) {
  const box = frame.boxes.get(id);
  if (!box) return true; // a hidden object may be anywhere
  const least = 0.03 * Math.max(frame.header.width, frame.header.height);
  const across = Math.max((box[2] - box[0]) / 2, least);
  const down = Math.max((box[3] - box[1]) / 2, least);
  return x >= box[0] - across && x < box[2] + across && y >= box[1] - down && y < box[3] + down;
}

// What a click at a point means: { kind, object }, where kind is "new", "select" or "refine".
// A background click refines what is selected, or what it hits; without either it is "none".
export function meaning(frame, at, { selected, isAdding, foreground, insists }) {
  const hit = objectAt(frame, at);
  if (!foreground) {
    const object = selected ?? hit;
    return object ? { kind: "refine", object } : { kind: "none", object: null };
  }
  if (isAdding) return { kind: "new", object: null };
  if (selected !== null && insists) return { kind: "refine", object: selected };
  if (hit && hit !== selected) return { kind: "select", object: hit };
  if (selected !== null && isNear(frame, selected, at)) return { kind: "refine", object: selected };
  return { kind: "new", object: null };
}
