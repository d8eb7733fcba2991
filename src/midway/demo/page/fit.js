// Network inputs from frames of any size, as midway.analysis.inputs.fit computes them.

/** Grid of patches for a frame: the shorter side becomes `network.shortSide` pixels. */
export function gridOf({ width, height }, network) {
  const factor = network.shortSide / Math.min(width, height);
  const patches = (side) => Math.max(1, roundHalfEven((side * factor) / network.patch));
  return { rows: patches(height), columns: patches(width) };
}

/** Row-major number of the patch that contains a point; integers are pixel centres. */
export function patchAt(point, frame, grid) {
  const cell = (place, side, count) =>
    Math.min(count - 1, Math.max(0, Math.floor(((place + 0.5) / side) * count)));
  const row = cell(point.y, frame.height, grid.rows);
  return row * grid.columns + cell(point.x, frame.width, grid.columns);
}

/** Centre of a place (column and row, may be fractions) in pixels of the frame. */
export function centreOf(column, row, frame, grid) {
  return {
    x: ((column + 0.5) * frame.width) / grid.columns - 0.5,
    y: ((row + 0.5) * frame.height) / grid.rows - 0.5,
  };
}

/**
 * Resize RGBA bytes to whole patches: antialiased bilinear, as torch's `interpolate`.
 * Returns intensities from 0 to 255, shape (3, height, width).
 */
export function resized(pixels, frame, grid, network) {
  const height = grid.rows * network.patch;
  const width = grid.columns * network.patch;
  const across = weightsOf(frame.width, width);
  const down = weightsOf(frame.height, height);
  const out = new Float32Array(3 * height * width);
  const narrow = new Float32Array(frame.height * width);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < frame.height; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = across[x];
        let sum = 0;
        for (let i = 0; i < weights.length; i++)
          sum += weights[i] * pixels[4 * (y * frame.width + first + i) + channel];
        narrow[y * width + x] = sum;
      }
    }
    for (let y = 0; y < height; y++) {
      const { first, weights } = down[y];
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * narrow[(first + i) * width + x];
        out[(channel * height + y) * width + x] = sum;
      }
    }
  }
  return out;
}

/** Subtract the network's mean and divide by its standard deviation, per channel; in place. */
export function normalise(image, network) {
  const area = image.length / 3;
  for (let i = 0; i < image.length; i++) {
    const channel = Math.floor(i / area);
    image[i] = (image[i] / 255 - network.mean[channel]) / network.std[channel];
  }
  return image;
}

/** First input pixel and weights of each output pixel; triangles of one output pixel's width. */
function weightsOf(from, to) {
  const scale = from / to;
  // Enlarging interpolates between neighbours; reducing averages all that an output pixel covers.
  const support = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const centre = scale * (place + 0.5);
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let i = first; i < end; i++)
      weights.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) / support)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/** Python's rounding, so that both sides choose the same grid. */
function roundHalfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
