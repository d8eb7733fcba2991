// Tracking by a chain of steps, as `midway track` does. Frames between two steps are reached from the
// step before them.

import { patchAt, regionAround } from "./fit.js";

/**
 * Rules of a step, as `--method` of midway track, and its length. `heatmap` takes the hottest patch;
 * `midway` the one of the hottest five that is most similar to the start. Which is better was
 * measured: docs/experiments/motion.md for whole frames, docs/ANALYSIS.md for windows.
 */
const WHOLE_FRAMES = { method: "heatmap", stepSeconds: 0.5 };
const WINDOWS = { method: "midway", stepSeconds: 0.25 };
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

/** Frames of a step: the number of frames in its time, at least 1. */
function strideOf(frames, stepSeconds) {
  const gap = (frames.at(-1).seconds - frames[0].seconds) / (frames.length - 1);
  return Math.max(1, Math.round(stepSeconds / gap));
}

/**
 * Follow points from frame `start` forward to the last and backward to the first.
 *
 * `look(source, target, region, tokens, queries)` computes a pair of frames. Yields after each frame,
 * with `tracks[point][frame] = {x, y, confidence}` filled in so far.
 */
export async function* follow(look, clip, points, start, network) {
  const count = clip.frames.length;
  const { method, stepSeconds } = network.window ? WINDOWS : WHOLE_FRAMES;
  const stride = strideOf(clip.frames, stepSeconds);
  const tracks = points.map((point) => {
    const track = new Array(count).fill(null);
    track[start] = { ...point, confidence: 1 };
    return track;
  });
  // In whole frames points share a look; a window belongs to one point.
  const size = network.window ? 1 : network.tokensAtOnce;
  const groups = Array.from({ length: Math.ceil(points.length / size) }, (_, group) =>
    [...points.keys()].slice(group * size, (group + 1) * size),
  );
  const starts = [];
  for (const group of groups)
    starts.push(...(await startsOf(look, clip, group.map((i) => points[i]), start, network)));
  for (const direction of [1, -1]) {
    let anchor = start;
    for (let k = start + direction; k >= 0 && k < count; k += direction) {
      for (const group of groups) {
        const before = group.map((i) => tracks[i][anchor]);
        const region = regionAround(before[0], clip, network);
        const tokens = before.map((point) => patchAt(point, region));
        const queries = group.map((i) => starts[i].descriptor);
        const seen = await look(anchor, k, region, tokens, queries);
        group.forEach((i, at) => {
          const [heat, similarity] = [seen.heat[at], seen.similarity[at]];
          const from = method === "midway" ? starts[i] : chainedFrom(before[at], tokens[at], region);
          const best = method === "midway" ? mostSimilar(heat, similarity) : highest(heat);
          const scores = method === "midway" ? similarity : heat;
          tracks[i][k] = moved(from, peak(scores, best, region), similarity[best], region, clip);
        });
      }
      if (Math.abs(k - anchor) === stride) anchor = k;
      yield tracks;
    }
  }
}

/**
 * Starts of the points of a look: the descriptors of their patches and, in windows, their positions in
 * the region, and column and row of the peaks of their similarity in their own frame.
 */
async function startsOf(look, clip, points, start, network) {
  const region = regionAround(points[0], clip, network);
  const tokens = points.map((point) => patchAt(point, region));
  const { descriptor } = await look(start, start, region, tokens);
  if (!network.window) return points.map((_, i) => ({ descriptor: descriptor[i] }));
  const { similarity } = await look(start, start, region, tokens, descriptor);
  return points.map(({ x, y }, i) => ({
    x: x - region.left,
    y: y - region.top,
    place: peak(similarity[i], tokens[i], region),
    descriptor: descriptor[i],
  }));
}

/** Beginning of a step that moves a point by the way from its patch to the peak. */
function chainedFrom({ x, y }, token, region) {
  const place = { column: token % region.columns, row: Math.floor(token / region.columns) };
  return { x: x - region.left, y: y - region.top, place };
}

/** The hottest few patches' most similar one. */
function mostSimilar(heat, similarity) {
  const order = [...heat.keys()].sort((a, b) => heat[b] - heat[a]);
  return order
    .slice(0, NUM_CANDIDATES)
    .reduce((best, each) => (similarity[each] > similarity[best] ? each : best));
}

/** Position of a point after a step, and its confidence: the similarity with its start. */
function moved(from, place, similarity, region, clip) {
  const across = (place.column - from.place.column) * (region.width / region.columns);
  const down = (place.row - from.place.row) * (region.height / region.rows);
  const [x, y] = [region.left + from.x + across, region.top + from.y + down];
  const inside = {
    x: Math.min(clip.width - 1, Math.max(0, x)),
    y: Math.min(clip.height - 1, Math.max(0, y)),
  };
  const isInside = inside.x === x && inside.y === y;
  // A point that has left the frame has confidence 0.
  return { ...inside, confidence: isInside ? Math.min(1, Math.max(0, similarity)) : 0 };
}
