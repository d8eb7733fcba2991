// Drawing of frames, heat, flow, gates, marks and legends.

import { POINT_COLOURS, flowColour, heatColour } from "./colours.js";
import { centreOf } from "./fit.js";

const SHORTEST_CANVAS = 480;
const SMOOTHNESS = 12; // pixels drawn per patch before the canvas enlarges them
const PATCH_COLOUR = "#00e04a";
const RING_COLOUR = "#00bfff";

/** Draw a frame on a canvas and return the context, in pixels of the frame. */
export function drawFrame(canvas, frame, { grey = false } = {}) {
  const scale = Math.max(1, Math.ceil(SHORTEST_CANVAS / Math.min(frame.width, frame.height)));
  canvas.width = frame.width * scale;
  canvas.height = frame.height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(frame.picture, 0, 0, canvas.width, canvas.height);
  if (grey) {
    // Colours of saturation 0; filters are missing in some browsers.
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
  }
  // Integers are pixel centres.
  context.setTransform(scale, 0, 0, scale, scale / 2, scale / 2);
  context.unit = Math.min(frame.width, frame.height) / 240;
  return context;
}

/** Cover a region with colours of values between patches; `colourAt(sample)` returns RGBA. */
function drawField(context, region, colourAt) {
  const [width, height] = [region.columns * SMOOTHNESS, region.rows * SMOOTHNESS];
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = sampler((x + 0.5) / SMOOTHNESS - 0.5, (y + 0.5) / SMOOTHNESS - 0.5, region);
      image.data.set(colourAt(at), 4 * (y * width + x));
    }
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(small, region.left - 0.5, region.top - 0.5, region.width, region.height);
}

/** Function that interpolates the values of a map at a place between patches. */
function sampler(column, row, { rows, columns }) {
  const x = Math.min(columns - 1, Math.max(0, column));
  const y = Math.min(rows - 1, Math.max(0, row));
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [right, bottom] = [Math.min(columns - 1, left + 1), Math.min(rows - 1, top + 1)];
  const [across, down] = [x - left, y - top];
  return (values) =>
    (1 - down) * ((1 - across) * values[top * columns + left] + across * values[top * columns + right]) +
    down * ((1 - across) * values[bottom * columns + left] + across * values[bottom * columns + right]);
}

/** Heat from 0 to its maximum: bright and opaque where it is hot. */
export function drawHeat(context, region, values, most) {
  drawField(context, region, (at) => {
    const share = Math.min(1, Math.max(0, at(values) / most));
    return [...heatColour(share), 255 * Math.min(1, 0.25 + 0.65 * share)];
  });
}

export function drawFlow(context, region, { u, v, sure }, most) {
  drawField(context, region, (at) => [
    ...flowColour(at(u), at(v), most),
    60 + 175 * at(sure),
  ]);
}

/** Arrow from the centre of each patch along its motion. */
export function drawArrows(context, region, { u, v, sure }) {
  context.lineJoin = context.lineCap = "round";
  context.lineWidth = 1.3 * context.unit;
  u.forEach((_, token) => {
    const { x, y } = centreOf(token % region.columns, Math.floor(token / region.columns), region);
    const [endX, endY] = [x + u[token], y + v[token]];
    const angle = Math.atan2(v[token], u[token]);
    const head = Math.min(5 * context.unit, 0.5 * Math.hypot(u[token], v[token]));
    context.strokeStyle = `rgba(20, 20, 30, ${0.12 + 0.7 * sure[token]})`;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(endX, endY);
    for (const turn of [2.6, -2.6]) {
      context.moveTo(endX, endY);
      context.lineTo(endX + head * Math.cos(angle + turn), endY + head * Math.sin(angle + turn));
    }
    context.stroke();
  });
}

/** Gates from the lowest to the highest of the map. */
export function drawGates(context, region, values, [low, high]) {
  drawField(context, region, (at) => {
    const share = (at(values) - low) / Math.max(high - low, 1e-9);
    return [...heatColour(share), 200];
  });
}

/** Thin outline of the region, if that is not the whole frame. */
export function drawWindow(context, region, frame) {
  if (region.width === frame.width && region.height === frame.height) return;
  context.lineWidth = 0.7 * context.unit;
  for (const [colour, dash] of [["rgba(0, 0, 0, 0.6)", []], ["#ffffff", [3, 3]]]) {
    context.strokeStyle = colour;
    context.setLineDash(dash.map((length) => length * context.unit));
    context.strokeRect(region.left - 0.5, region.top - 0.5, region.width, region.height);
  }
  context.setLineDash([]);
}

/** Outline of a patch. */
export function drawPatch(context, region, token, { dashed = false } = {}) {
  const [width, height] = [region.width / region.columns, region.height / region.rows];
  const left = region.left + (token % region.columns) * width - 0.5;
  const top = region.top + Math.floor(token / region.columns) * height - 0.5;
  context.setLineDash(dashed ? [4 * context.unit, 3 * context.unit] : []);
  stroked(context, PATCH_COLOUR, () => context.rect(left, top, width, height));
  context.setLineDash([]);
}

export function drawCross(context, { x, y }) {
  const size = 4 * context.unit;
  stroked(context, "#ffffff", () => {
    context.moveTo(x - size, y);
    context.lineTo(x + size, y);
    context.moveTo(x, y - size);
    context.lineTo(x, y + size);
  });
}

export function drawRing(context, { x, y }, colour = RING_COLOUR) {
  stroked(context, colour, () => context.arc(x, y, 7 * context.unit, 0, 2 * Math.PI));
}

/** Paths of points up to a frame: dashed where a point is likely lost. */
export function drawTracks(context, tracks, start, last) {
  tracks.forEach((track, i) => {
    const colour = POINT_COLOURS[i % POINT_COLOURS.length];
    const step = last < start ? -1 : 1;
    for (let k = start; k !== last; k += step) {
      const [a, b] = [track[k], track[k + step]];
      if (!a || !b) break;
      context.setLineDash(b.confidence < 0.5 ? [2 * context.unit, 4 * context.unit] : []);
      stroked(context, colour, () => {
        context.moveTo(a.x, a.y);
        context.lineTo(b.x, b.y);
      });
    }
    context.setLineDash([]);
    const now = track[last];
    if (now) drawDot(context, now, colour, now.confidence >= 0.5);
  });
}

export function drawDot(context, { x, y }, colour, filled = true) {
  context.beginPath();
  context.arc(x, y, 4.5 * context.unit, 0, 2 * Math.PI);
  context.fillStyle = colour;
  if (filled) context.fill();
  stroked(context, filled ? "#ffffff" : colour, () =>
    context.arc(x, y, 4.5 * context.unit, 0, 2 * Math.PI),
  );
}

/** Stroke a path over a dark halo, so that it shows on any picture. */
function stroked(context, colour, path) {
  context.beginPath();
  path();
  context.lineJoin = context.lineCap = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.6)";
  context.lineWidth = 3.4 * context.unit;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = 1.7 * context.unit;
  context.stroke();
}

/** Bar of the heat colours for a legend. */
export function colourBar() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 120, height: 12 });
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${heatColour(x / (canvas.width - 1)).join()})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  canvas.setAttribute("role", "presentation");
  return canvas;
}

/** Colour wheel of flow for a legend. */
export function wheel() {
  const size = 64;
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  canvas.setAttribute("role", "img");
  canvas.setAttribute(
    "aria-label",
    "Colour wheel of motion: right is red, down yellow, left cyan, up violet",
  );
  const image = new ImageData(size, size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const [u, v] = [(2 * x + 1) / size - 1, (2 * y + 1) / size - 1];
      const alpha = Math.hypot(u, v) <= 1 ? 255 : 0;
      image.data.set([...flowColour(u, v, 1), alpha], 4 * (y * size + x));
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
