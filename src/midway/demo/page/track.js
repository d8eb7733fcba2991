// Tracking by a chain of heatmaps, as `midway track --method heatmap`: a step of about half a
// second, the gap that the networks are trained on. Frames between two steps are reached from the
// step before them.

import { patchAt } from "./fit.js";

const STEP_SECONDS = 0.5;
const TEMPERATURE = 0.03;
const PEAK_RADIUS = 1.5;

/** Number of the highest value. */
export function highest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Column and row of the soft-argmax around the best patch. */
export function peak(values, best, { rows, columns }) {
  const [bestRow, bestColumn] = [Math.floor(best / columns), best % columns];
  let [total, column, row] = [0, 0, 0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (Math.abs(x - bestColumn) >= PEAK_RADIUS || Math.abs(y - bestRow) >= PEAK_RADIUS) continue;
      const weight = Math.exp((values[y * columns + x] - values[best]) / TEMPERATURE);
      total += weight;
      column += weight * x;
      row += weight * y;
    }
  }
  return { column: column / total, row: row / total };
}

/** Frames of a step: the number of frames in half a second, at least 1. */
export function strideOf(frames) {
  const gap = (frames.at(-1).seconds - frames[0].seconds) / (frames.length - 1);
  return Math.max(1, Math.round(STEP_SECONDS / gap));
}

/**
 * Follow points from frame `start` forward to the last and backward to the first.
 *
 * `look(source, target, tokens, queries)` computes a pair of frames. Yields after each frame, with
 * `tracks[point][frame] = {x, y, confidence}` filled in so far.
 */
export async function* follow(look, frames, points, start, grid) {
  const frame = frames[start];
  const stride = strideOf(frames);
  const tracks = points.map((point) => {
    const track = new Array(frames.length).fill(null);
    track[start] = { ...point, confidence: 1 };
    return track;
  });
  let descriptors = null;
  for (const direction of [1, -1]) {
    let anchor = start;
    for (let k = start + direction; k >= 0 && k < frames.length; k += direction) {
      const tokens = tracks.map((track) => patchAt(track[anchor], frame, grid));
      // The first look only finds the descriptors of the starts.
      descriptors ??= (await look(start, k, tokens, null)).descriptor;
      const seen = await look(anchor, k, tokens, descriptors);
      tracks.forEach((track, i) => (track[k] = moved(track[anchor], tokens[i], seen, i, frame, grid)));
      if (Math.abs(k - anchor) === stride) anchor = k;
      yield tracks;
    }
  }
}

/** Position of a point after a step, and its confidence: the similarity with its start. */
function moved(point, token, { heat, similarity }, i, frame, grid) {
  const best = highest(heat[i]);
  const { column, row } = peak(heat[i], best, grid);
  const x = point.x + (column - (token % grid.columns)) * (frame.width / grid.columns);
  const y = point.y + (row - Math.floor(token / grid.columns)) * (frame.height / grid.rows);
  const inside = {
    x: Math.min(frame.width - 1, Math.max(0, x)),
    y: Math.min(frame.height - 1, Math.max(0, y)),
  };
  const isInside = inside.x === x && inside.y === y;
  // A point that has left the frame has confidence 0.
  const confidence = isInside ? Math.min(1, Math.max(0, similarity[i][best])) : 0;
  return { ...inside, confidence };
}
