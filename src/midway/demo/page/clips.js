// Clips: frames of a bundled sheet, of a dropped video, or of two dropped images.

import { resized } from "./fit.js";

const MOST_FRAMES = 32;
const SHORTEST_STEP = 1 / 8;
const LONGEST_STEP = 1 / 4;
const LOAD_SECONDS = 20;
const EXACT = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

const MOST_INPUTS = 64;

/**
 * A clip is {title, alt, width, height, scale, frames, point?}, and a frame {picture, seconds, width,
 * height, label?}; `scale` is the size of its frames relative to those of the file, `point` the place
 * to begin with.
 */
function clipOf(title, alt, frames, scale) {
  const [{ picture }] = frames;
  return { title, alt, width: picture.width, height: picture.height, scale, frames };
}

function frameOf(picture, seconds) {
  return { picture, seconds, width: picture.width, height: picture.height };
}

/** Network inputs of a clip; kept, as most clicks are in frames that were seen before. */
export class Inputs {
  constructor(clip, network) {
    Object.assign(this, { clip, network, kept: new Map() });
  }

  /** Network input of a region of a frame. */
  of(number, region) {
    const key = [number, region.left, region.top].join();
    if (!this.kept.has(key)) {
      if (this.kept.size === MOST_INPUTS) this.kept.clear();
      const pixels = pixelsOf(this.clip.frames[number], region);
      this.kept.set(key, resized(pixels, region, this.network));
    }
    return this.kept.get(key);
  }
}

/** RGBA bytes of a region of a frame. */
function pixelsOf({ picture }, { left, top, width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, -left, -top);
  return context.getImageData(0, 0, width, height).data;
}

/**
 * Largest central part with the aspect of the network, as [x, y, width, height]. A network inside
 * the page takes images of one size. Frames of other shapes are cropped, unless it sees windows.
 */
function central(width, height, network) {
  if (!network.size) return [0, 0, width, height];
  const aspect = network.size[1] / network.size[0];
  const w = Math.min(width, Math.round(height * aspect));
  const h = Math.min(height, Math.round(width / aspect));
  return [Math.floor((width - w) / 2), Math.floor((height - h) / 2), w, h];
}

/** Cut the frames of a bundled clip out of its sheet. */
export async function openBundled(entry, network) {
  const response = await fetch(entry.sheet);
  if (!response.ok) throw new Error(`${entry.sheet} is missing; write the page again`);
  // Decoded once for all frames: a sheet of a large video has many megapixels.
  const sheet = await createImageBitmap(await response.blob(), EXACT);
  const frames = entry.seconds.map(async (seconds, i) => {
    const [x, y, ...size] = central(entry.width, entry.height, network);
    const left = (i % entry.columns) * entry.width + x;
    const top = Math.floor(i / entry.columns) * entry.height + y;
    return frameOf(await createImageBitmap(sheet, left, top, ...size, EXACT), seconds);
  });
  const pictures = await Promise.all(frames);
  sheet.close();
  const clip = clipOf(entry.title, entry.alt, pictures, entry.scale);
  if (!entry.point) return clip;
  const [left, top] = central(entry.width, entry.height, network);
  return { ...clip, point: { x: entry.point[0] - left, y: entry.point[1] - top } };
}

/** Open one video, or two images of one size. */
export async function openFiles(files, network, say) {
  const images = files.filter((file) => file.type.startsWith("image/"));
  if (files.length === 1 && !images.length) return openVideo(files[0], network, say);
  if (files.length === 2 && images.length === 2) return openPair(images, network);
  if (files.length === 1)
    throw new Error(`${files[0].name} is one image; drop two images, or a video`);
  throw new Error("Drop one video, or two images of one size");
}

async function openPair(files, network) {
  const images = await Promise.all(files.map(openImage));
  const [a, b] = images;
  if (a.width !== b.width || a.height !== b.height)
    throw new Error(
      `The images differ in size: ${a.width} × ${a.height} and ${b.width} × ${b.height} pixels; ` +
        "give two of one size",
    );
  const names = files.map((file) => file.name).join(" and ");
  const made = await Promise.all(images.map((image) => reduced(image, network)));
  const frames = made.map(({ picture }, i) => ({ ...frameOf(picture, i), label: ["first", "second"][i] }));
  return clipOf(names, `your images ${names}`, frames, made[0].scale);
}

async function openImage(file) {
  try {
    return await createImageBitmap(file, EXACT);
  } catch {
    throw new Error(`${file.name} cannot be read as an image; give a PNG, JPEG or WebP`);
  }
}

/**
 * {picture, scale}: the central part, no longer than `network.longestSide`, and its size relative to
 * the file's. Networks see less, and memory stays bounded.
 */
async function reduced(picture, network) {
  const part = central(picture.width, picture.height, network);
  const scale = Math.min(1, network.longestSide / Math.max(part[2], part[3]));
  const [resizeWidth, resizeHeight] = part.slice(2).map((side) => Math.max(1, Math.round(side * scale)));
  const size = scale < 1 ? { resizeWidth, resizeHeight, resizeQuality: "high" } : {};
  const made = await createImageBitmap(picture, ...part, { ...size, ...EXACT });
  picture.close();
  return { picture: made, scale };
}

async function openVideo(file, network, say) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto" });
  const address = URL.createObjectURL(file);
  const unreadable = `${file.name} is not a video that this browser can play; ` +
    "try an MP4, or midway demo FILE";
  try {
    const loaded = once(video, "loadeddata", unreadable);
    video.src = address;
    await loaded;
    const times = timesOf(video.duration);
    if (!video.videoWidth) throw new Error(`${file.name} has no picture; give a video`);
    const frames = [];
    let scale = 1;
    for (const seconds of times) {
      const sought = once(video, "seeked", unreadable);
      video.currentTime = seconds;
      await sought;
      const made = await reduced(await createImageBitmap(video, EXACT), network);
      frames.push(frameOf(made.picture, seconds));
      scale = made.scale;
      say(`Reading ${file.name}: ${frames.length} of ${times.length} frames`);
    }
    return clipOf(file.name, `your video ${file.name}`, frames, scale);
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(address);
  }
}

/** Evenly spaced times of at most MOST_FRAMES frames, from the beginning. */
function timesOf(duration) {
  const length = Number.isFinite(duration) ? duration : MOST_FRAMES * LONGEST_STEP;
  const step = Math.min(LONGEST_STEP, Math.max(SHORTEST_STEP, length / MOST_FRAMES));
  const count = Math.min(MOST_FRAMES, Math.max(2, Math.floor(length / step)));
  // The middle of each step: times at the edge of a frame are rounded either way.
  return Array.from({ length: count }, (_, i) => Math.min(length, (i + 0.5) * step));
}

function once(target, event, failure) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(failure)), 1000 * LOAD_SECONDS);
    const settle = (act) => () => {
      clearTimeout(timer);
      act();
    };
    target.addEventListener(event, settle(resolve), { once: true });
    target.addEventListener("error", settle(() => reject(new Error(failure))), { once: true });
  });
}
