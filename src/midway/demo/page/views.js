// The four views: their computation, pictures, legends and descriptions.
//
// `compute(scene, look, show)` returns the result of a view, or null if it was superseded; it calls
// `show(partial)` on the way. A scene is {clip, region, source, target, point, points, token}, where
// `region` is the part of both frames that the network sees. `sees` is said of networks of windows.

import { POINT_COLOURS } from "./colours.js";
import * as draw from "./draw.js";
import { centreOf } from "./fit.js";
import { follow, highest, peak } from "./track.js";

const MOST_FLOW_PATCHES = 64;
const SEES_SQUARE = "The network sees the outlined square only.";

export const MOST_POINTS = POINT_COLOURS.length;

const heat = {
  explains: "Click or drag in the first picture: the glow in the second shows where that patch has gone.",
  sees: SEES_SQUARE,
  async compute({ source, target, token, region }, look) {
    const found = await look(source, target, region, [token]);
    if (!found) return null;
    const values = found.heat[0];
    const best = highest(values);
    const ring = centreOf(best % region.columns, Math.floor(best / region.columns), region);
    return { ...found, values, most: values[best], ring };
  },
  draw({ clip, region, source, target, token, point }, result, sourceCanvas, targetCanvas) {
    const left = draw.drawFrame(sourceCanvas, clip.frames[source]);
    draw.drawWindow(left, region, clip);
    draw.drawPatch(left, region, token);
    draw.drawCross(left, point);
    const right = draw.drawFrame(targetCanvas, clip.frames[target], { grey: Boolean(result) });
    if (!result) return;
    draw.drawHeat(right, region, result.values, Math.max(result.most, 1e-6));
    draw.drawWindow(right, region, clip);
    draw.drawPatch(right, region, token, { dashed: true });
    draw.drawRing(right, result.ring);
  },
  says({ region, token }, { ring }) {
    const from = centreOf(token % region.columns, Math.floor(token / region.columns), region);
    return moved(ring.x - from.x, ring.y - from.y);
  },
  alt({ clip }, result) {
    return result
      ? `Heat over the later frame of ${clip.title}: brightest ${place(result.ring, clip)}`
      : `The later frame of ${clip.title}`;
  },
  legend: (_, result) => [
    draw.colourBar(),
    text(`0 to ${result ? result.most.toFixed(2) : "…"} (cosine)`),
    mark("square", "chosen patch"),
    mark("ring", "hottest patch"),
  ],
};

const track = {
  explains: "Click in the first picture to follow up to six points; then play, or drag through time.",
  sees: "In each step the network sees a square around each point.",
  async compute({ points, source, clip, network }, look, show) {
    if (!points.length) return { tracks: [], milliseconds: 0 };
    let milliseconds = 0;
    const timed = async (...pair) => {
      const found = await look(...pair);
      if (!found) throw new Superseded();
      milliseconds += found.milliseconds;
      return found;
    };
    try {
      let tracks = [];
      for await (tracks of follow(timed, clip, points, source, network))
        show({ tracks, milliseconds });
      return { tracks, milliseconds };
    } catch (error) {
      if (error instanceof Superseded) return null;
      throw error;
    }
  },
  draw({ clip, source, target, points }, result, sourceCanvas, targetCanvas) {
    const left = draw.drawFrame(sourceCanvas, clip.frames[source]);
    points.forEach((point, i) => draw.drawDot(left, point, POINT_COLOURS[i]));
    const right = draw.drawFrame(targetCanvas, clip.frames[target]);
    if (result) draw.drawTracks(right, result.tracks, source, target);
  },
  says({ points, target, clip }, { tracks }) {
    if (!points.length) return "No point yet: click in the first picture";
    const done = tracks[0].filter(Boolean).length;
    if (done < clip.frames.length) return `Following: ${done} of ${clip.frames.length} frames`;
    const lost = tracks.filter((each) => each[target].confidence < 0.5).length;
    const count = tracks.length === 1 ? "1 point" : `${tracks.length} points`;
    return `${count} followed${lost ? `; ${lost} of them likely lost here` : ""}`;
  },
  alt({ clip, target }, result) {
    const where = (result?.tracks ?? [])
      .map((each, i) => each[target] && `point ${i + 1} ${place(each[target], clip)}`)
      .filter(Boolean);
    return `Tracks over the later frame of ${clip.title}: ${where.join(", ") || "none yet"}`;
  },
  legend: (_, __, clear) => [text("solid: sure, dashed: likely lost"), clear],
};

const flow = {
  explains: "Each patch of the first picture and the way it took: by arrow, and by colour as on the wheel.",
  sees: SEES_SQUARE,
  async compute({ source, target, region, network }, look, show) {
    const { tokens, coarse } = sampled(region);
    const u = new Float32Array(tokens.length);
    const v = new Float32Array(tokens.length);
    const heights = new Float32Array(tokens.length);
    let milliseconds = 0;
    for (let first = 0; first < tokens.length; first += network.tokensAtOnce) {
      const some = tokens.slice(first, first + network.tokensAtOnce);
      const found = await look(source, target, region, some);
      if (!found) return null;
      milliseconds += found.milliseconds;
      some.forEach((token, i) => {
        const best = highest(found.heat[i]);
        const { column, row } = peak(found.heat[i], best, region);
        u[first + i] = (column - (token % region.columns)) * (region.width / region.columns);
        v[first + i] = (row - Math.floor(token / region.columns)) * (region.height / region.rows);
        heights[first + i] = found.heat[i][best];
      });
      show({ share: (first + some.length) / tokens.length, milliseconds });
    }
    // Patches that leave the frame have no place to go to; they would set the scale otherwise.
    const most = Math.max(1, quantile(u.map((_, i) => Math.hypot(u[i], v[i])), 0.9));
    // Low peaks, as of those patches, are drawn fainter.
    const usual = Math.max(1e-6, quantile(heights, 0.5));
    const sure = heights.map((each) => Math.min(1, Math.max(0, each / usual)) ** 2);
    return { u, v, sure, most, coarse, milliseconds };
  },
  draw({ clip, region, source, target }, result, sourceCanvas, targetCanvas) {
    draw.drawWindow(draw.drawFrame(sourceCanvas, clip.frames[source]), region, clip);
    const right = draw.drawFrame(targetCanvas, clip.frames[source], { grey: true });
    if (result?.u) {
      draw.drawFlow(right, result.coarse, result, result.most);
      draw.drawArrows(right, result.coarse, result);
      draw.drawWindow(right, region, clip);
    } else draw.drawFrame(targetCanvas, clip.frames[target]);
  },
  says(_, { u, v, most, share }) {
    if (!u) return `Computing the flow: ${Math.round(100 * share)} %`;
    const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
    return `On average ${moved(mean(u), mean(v)).toLowerCase()}; nine in ten patches at most ${Math.round(most)} px`;
  },
  alt: ({ clip }, result) =>
    result?.u
      ? `Flow of ${clip.title} as colours and arrows; most motion is below ${Math.round(result.most)} pixels`
      : `The later frame of ${clip.title}`,
  legend: (_, result) => [
    draw.wheel(),
    text(result?.u ? `centre: still; rim: ${Math.round(result.most)} px that way; darker: further` : ""),
  ],
};

const gates = {
  explains: "Bright patches are carried over from the earlier frame; dark ones are computed anew.",
  sees: SEES_SQUARE,
  async compute({ source, target, token, region }, look) {
    const found = await look(source, target, region, [token]);
    if (!found) return null;
    const count = found.gates.length;
    const mean = found.gates[0].map((_, i) => found.gates.reduce((sum, g) => sum + g[i], 0) / count);
    return { ...found, mean, range: [Math.min(...mean), Math.max(...mean)] };
  },
  draw({ clip, region, source, target }, result, sourceCanvas, targetCanvas) {
    draw.drawWindow(draw.drawFrame(sourceCanvas, clip.frames[source]), region, clip);
    const right = draw.drawFrame(targetCanvas, clip.frames[result ? source : target], {
      grey: Boolean(result),
    });
    if (!result) return;
    draw.drawGates(right, region, result.mean, result.range);
    draw.drawWindow(right, region, clip);
  },
  says: (_, { gates: blocks, range: [low, high] }) =>
    `Gates from ${low.toFixed(2)} to ${high.toFixed(2)}, mean of ${blocks.length} blocks`,
  alt: ({ clip }, result) =>
    result
      ? `Gates of ${clip.title}, from ${result.range[0].toFixed(2)} to ${result.range[1].toFixed(2)}`
      : `The later frame of ${clip.title}`,
  legend: (_, result) =>
    result
      ? [text(result.range[0].toFixed(2)), draw.colourBar(), text(result.range[1].toFixed(2))]
      : [],
};

export const VIEWS = { heat, track, flow, gates };

class Superseded extends Error {}

/** Patches of the flow: all, or of a fine grid about MOST_FLOW_PATCHES, evenly spaced. */
function sampled(region) {
  const stride = Math.ceil(Math.sqrt((region.rows * region.columns) / MOST_FLOW_PATCHES));
  const middles = (count) =>
    Array.from({ length: Math.ceil(count / stride) }, (_, i) =>
      Math.min(count - 1, i * stride + Math.floor(stride / 2)),
    );
  const [rows, columns] = [middles(region.rows), middles(region.columns)];
  const tokens = rows.flatMap((row) => columns.map((column) => row * region.columns + column));
  return { tokens, coarse: { ...region, rows: rows.length, columns: columns.length } };
}

function quantile(values, share) {
  return values.slice().sort()[Math.floor(share * (values.length - 1))];
}

function moved(x, y) {
  const [right, down] = [Math.round(x), Math.round(y)];
  const parts = [];
  if (right) parts.push(`${Math.abs(right)} px ${right > 0 ? "right" : "left"}`);
  if (down) parts.push(`${Math.abs(down)} px ${down > 0 ? "down" : "up"}`);
  return parts.length ? `Moved ${parts.join(" and ")}` : "Did not move";
}

/** Position in words, for those who do not see the picture. */
function place({ x, y }, { width, height }) {
  const across = Math.round((100 * (x + 0.5)) / width);
  const down = Math.round((100 * (y + 0.5)) / height);
  return `${across} % from the left and ${down} % from the top`;
}

function text(words) {
  return Object.assign(document.createElement("span"), { textContent: words });
}

function mark(kind, words) {
  const label = text(words);
  label.prepend(Object.assign(document.createElement("span"), { className: kind }));
  return label;
}
