// The paper's rule of tracking, as midway.analysis.track_steps: of the five hottest patches of the
// point's heatmap, the one most similar to the start.

import { patchAt } from "./fit.js";

const NUM_CANDIDATES = 5;
const TEMPERATURE = 0.03;
const PEAK_RADIUS = 1.5;

/** Number of the highest value. */
export function highest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Column and row of the soft-argmax around the best patch. */
export function peak(values, best, grid) {
  const { rows, columns } = grid;
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

/** The candidate of the hottest patches that is most similar. */
function mostSimilar(similarity, heat) {
  const hottest = [...heat.keys()].sort((a, b) => heat[b] - heat[a]).slice(0, NUM_CANDIDATES);
  return hottest.reduce((best, i) => (similarity[i] > similarity[best] ? i : best));
}

/**
 * Follow points from frame `start` forward to the last and backward to the first.
 *
 * `look(source, target, tokens, queries)` computes a pair of frames. Yields after each step, with
 * `tracks[point][frame] = {x, y, confidence}` filled in so far; the generator may be abandoned.
 */
export async function* follow(look, frames, points, start, grid) {
  const frame = frames[start];
  const tokens = points.map((point) => patchAt(point, frame, grid));
  const begun = await look(start, start, tokens, null);
  const starts = points.map((point, i) => ({
    point,
    place: peak(begun.own[i], tokens[i], grid),
  }));
  const tracks = points.map(() => new Array(frames.length).fill(null));
  points.forEach((point, i) => (tracks[i][start] = { ...point, confidence: 1 }));
  yield tracks;
  for (const step of [1, -1]) {
    for (let k = start + step; k >= 0 && k < frames.length; k += step) {
      const before = tracks.map((track) => track[k - step]);
      const here = before.map((point) => patchAt(point, frame, grid));
      const seen = await look(k - step, k, here, begun.descriptor);
      tracks.forEach((track, i) => (track[k] = moved(starts[i], seen, i, frame, grid)));
      yield tracks;
    }
  }
}

/** Position and confidence of a point after a step. */
function moved({ point, place }, seen, i, frame, grid) {
  const best = mostSimilar(seen.similarity[i], seen.heat[i]);
  const now = peak(seen.similarity[i], best, grid);
  const x = point.x + (now.column - place.column) * (frame.width / grid.columns);
  const y = point.y + (now.row - place.row) * (frame.height / grid.rows);
  const inside = {
    x: Math.min(frame.width - 1, Math.max(0, x)),
    y: Math.min(frame.height - 1, Math.max(0, y)),
  };
  const isInside = inside.x === x && inside.y === y;
  // A point that has left the frame has confidence 0.
  const sure = isInside ? Math.min(1, Math.max(0, seen.similarity[i][best])) : 0;
  return { ...inside, confidence: sure };
}
