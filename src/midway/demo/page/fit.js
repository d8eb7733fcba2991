// Network inputs from parts of frames, as midway.analysis.inputs computes them.
//
// A region is a part of a frame, in its pixels, and its grid of patches: {left, top, width, height,
// rows, columns}.

/**
 * What the network sees for a point: the whole frame, or a square around the point, moved into the
 * frame. `network.window` counts pixels of the file, of which `clip.scale` reduces each to fewer.
 */
export function regionAround(point, clip, network) {
  const { width, height } = clip;
  if (!network.window) return gridded({ left: 0, top: 0, width, height }, network);
  // The largest square of a smaller frame: a network inside the page takes squares only.
  const side = Math.min(width, height, Math.max(1, Math.round(network.window * clip.scale)));
  const corner = (place, length) =>
    Math.max(0, Math.min(length - side, roundHalfEven(place - (side - 1) / 2)));
  const [left, top] = [corner(point.x, width), corner(point.y, height)];
  return gridded({ left, top, width: side, height: side }, network);
}

/** The part with its grid of patches: the shorter side becomes `network.shortSide` pixels. */
function gridded(part, network) {
  const factor = network.shortSide / Math.min(part.width, part.height);
  const patches = (side) => Math.max(1, roundHalfEven((side * factor) / network.patch));
  return { ...part, rows: patches(part.height), columns: patches(part.width) };
}

/** Row-major number of the patch that contains a point; integers are pixel centres. */
export function patchAt(point, region) {
  const cell = (place, side, count) =>
    Math.min(count - 1, Math.max(0, Math.floor(((place + 0.5) / side) * count)));
  const row = cell(point.y - region.top, region.height, region.rows);
  return row * region.columns + cell(point.x - region.left, region.width, region.columns);
}

/** Centre of a place (column and row, may be fractions) in pixels of the frame. */
export function centreOf(column, row, region) {
  return {
    x: region.left + ((column + 0.5) * region.width) / region.columns - 0.5,
    y: region.top + ((row + 0.5) * region.height) / region.rows - 0.5,
  };
}

/**
 * Resize RGBA bytes of a region to whole patches: antialiased bilinear, as torch's `interpolate`.
 * Returns intensities from 0 to 255, shape (3, height, width).
 */
export function resized(pixels, region, network) {
  const height = region.rows * network.patch;
  const width = region.columns * network.patch;
  const across = weightsOf(region.width, width);
  const down = weightsOf(region.height, height);
  const out = new Float32Array(3 * height * width);
  const narrow = new Float32Array(region.height * width);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < region.height; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = across[x];
        let sum = 0;
        for (let i = 0; i < weights.length; i++)
          sum += weights[i] * pixels[4 * (y * region.width + first + i) + channel];
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
