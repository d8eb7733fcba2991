// Colours of heat, flow and points.

/** Samples of matplotlib's "inferno", from 0 to 1. */
const INFERNO = [
  [0, 0, 4], [22, 11, 57], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84],
  [221, 81, 58], [243, 120, 25], [252, 165, 10], [246, 215, 70], [252, 255, 164],
];

/** Hues of the Middlebury wheel: number of steps from each corner to the next. */
const WHEEL_STEPS = [15, 6, 4, 11, 13, 6];
const WHEEL_CORNERS = [
  [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0],
];

/** Okabe and Ito's palette, one colour a point. */
export const POINT_COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7"];

/** RGB bytes of a share from 0 to 1. */
export function heatColour(share) {
  const place = Math.min(1, Math.max(0, share)) * (INFERNO.length - 1);
  const below = Math.min(INFERNO.length - 2, Math.floor(place));
  return INFERNO[below].map((value, i) => value + (place - below) * (INFERNO[below + 1][i] - value));
}

/** RGB bytes of a motion, as midway.data.flow.colours: full colour at `most` pixels. */
export function flowColour(u, v, most) {
  const length = Math.hypot(u, v) / most;
  const total = WHEEL_STEPS.reduce((sum, steps) => sum + steps, 0);
  let place = ((Math.atan2(-v, -u) / Math.PI + 1) / 2) * (total - 1);
  let segment = 0;
  while (segment < WHEEL_STEPS.length - 1 && place > WHEEL_STEPS[segment]) {
    place -= WHEEL_STEPS[segment];
    segment++;
  }
  const share = place / WHEEL_STEPS[segment];
  return WHEEL_CORNERS[segment].map((value, i) => {
    const hue = value + share * (WHEEL_CORNERS[segment + 1][i] - value);
    return Math.floor(255 * (length <= 1 ? 1 - length * (1 - hue) : 0.75 * hue));
  });
}
