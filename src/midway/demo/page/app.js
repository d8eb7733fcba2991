// The page: what is chosen, what is computed next, and what is shown.

import { Inputs, openBundled, openFiles } from "./clips.js";
import { Latest, openEngine } from "./engine.js";
import { centreOf, patchAt, regionAround } from "./fit.js";
import { listenToDrops, listenToKeys } from "./input.js";
import { MOST_POINTS, VIEWS } from "./views.js";

const FIRST_GAP_SECONDS = 0.5;
const PLAY_MS = 160;
const SLOW_MS = 400;

const element = (id) => document.getElementById(id);
const [sourceCanvas, targetCanvas] = [element("source"), element("target")];
const clear = Object.assign(document.createElement("button"), { textContent: "Clear", type: "button" });

/** Everything that is chosen; `result` belongs to the latest computed scene of the view. */
const state = {
  page: null,
  engine: null,
  clip: null,
  view: "heat",
  source: 0,
  target: 0,
  point: { x: 0, y: 0 },
  points: [],
  result: null,
  playing: null,
  pending: 0,
  slow: false,
  inputs: null,
};
const latest = new Latest(compute);

async function start() {
  try {
    const response = await fetch("page.json");
    if (!response.ok) throw new Error("page.json is missing; write the page again");
    state.page = await response.json();
    const { network, clips } = state.page;
    const where = network.compute === "page" ? "in this page; nothing is uploaded" : "by the server";
    element("network").textContent = `Network: ${network.name}, level ${network.level}, computed ${where}.`;
    showClips(clips);
    const opening = openEngine(network, say);
    await choose(openBundled(clips[0], network), 0);
    state.engine = await opening;
    update();
  } catch (error) {
    complain(error);
  }
}

// ---- choosing

function showClips(clips) {
  const buttons = clips.map((entry, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const thumb = Object.assign(document.createElement("span"), { className: "thumb" });
    const rows = Math.ceil(entry.seconds.length / entry.columns);
    thumb.style.backgroundImage = `url("${entry.sheet}")`;
    thumb.style.backgroundSize = `${100 * entry.columns}% ${100 * rows}%`;
    button.append(thumb, entry.title);
    button.title = entry.alt;
    button.addEventListener("click", () => choose(openBundled(entry, state.page.network), i));
    return button;
  });
  element("clips").replaceChildren(...buttons);
}

let choices = 0;

/** Show a clip that is being opened; on failure keep the one before, and say why. */
async function choose(opening, number) {
  const mine = ++choices; // a later choice wins, even if it opens first
  try {
    const clip = await opening;
    if (mine !== choices) return clip.frames.forEach((frame) => frame.picture.close());
    for (const frame of state.clip?.frames ?? []) frame.picture.close();
    stop();
    const { network } = state.page;
    Object.assign(state, { clip, source: 0, points: [], result: null, inputs: new Inputs(clip, network) });
    const later = clip.frames.findIndex((each) => each.seconds - clip.frames[0].seconds >= FIRST_GAP_SECONDS);
    state.target = later > 0 ? later : clip.frames.length - 1;
    const region = regionAround({ x: clip.width / 2, y: clip.height / 2 }, clip, network);
    // The centre of a patch near the middle.
    const [column, row] = [region.columns, region.rows].map((count) => Math.floor(count / 2));
    setPoint(clip.point ?? centreOf(column, row, region));
    element("stage").classList.toggle("wide", clip.width > 1.4 * clip.height);
    for (const id of ["from", "to"]) element(id).max = clip.frames.length - 1;
    [...element("clips").children].forEach((button, i) =>
      button.setAttribute("aria-pressed", String(i === number)),
    );
    element("message").hidden = true;
    update();
  } catch (error) {
    if (mine === choices) complain(error);
  }
}

function chooseFiles(files) {
  if (!files.length) return;
  say("Reading …");
  choose(openFiles([...files], state.page.network, say), -1).then(() => render());
}

function setPoint(point) {
  const { width, height } = state.clip;
  const inside = {
    x: Math.min(width - 1, Math.max(0, point.x)),
    y: Math.min(height - 1, Math.max(0, point.y)),
  };
  state.point = inside;
  return inside;
}

function addPoint(point) {
  if (state.points.length === MOST_POINTS) return say(`${MOST_POINTS} points at most; clear some`);
  state.points = [...state.points, setPoint(point)];
  update();
}

// ---- computing

/** The scene as it is chosen now. */
function scene() {
  const { clip, source, target, point, points, page } = state;
  const region = regionAround(point, clip, page.network);
  const token = patchAt(point, region);
  return { clip, region, source, target, point, points, token, network: page.network };
}

/** Compute and show the chosen scene; of many requests in a row, the first and the last. */
async function update() {
  render();
  if (!state.engine || !state.clip) return;
  busy(1);
  const waiting = setTimeout(() => {
    state.slow = true;
    render();
  }, SLOW_MS);
  try {
    const found = await latest.ask(() => ({ view: state.view, now: scene() }));
    if (found) {
      state.result = found;
      // For pages that embed this one, and for tests.
      document.dispatchEvent(new CustomEvent("midway", { detail: { ...found, asked: latest.count } }));
      element("message").hidden = true;
    }
  } catch (error) {
    complain(error);
  } finally {
    clearTimeout(waiting);
    busy(-1);
  }
  render();
}

/** Count the updates that wait for the network. */
function busy(by) {
  state.pending += by;
  if (!state.pending) state.slow = false;
  element("stage").setAttribute("aria-busy", String(state.pending > 0));
}

/** Compute a view of a scene; null if a newer one waits. */
async function compute({ view, now }) {
  const isCurrent = () => !latest.waiting && now.clip === state.clip;
  const look = async (source, target, region, tokens, queries = null) => {
    if (!isCurrent()) return null;
    const images = [source, target].map((number) => state.inputs.of(number, region));
    return state.engine.look({ source: images[0], target: images[1], grid: region, tokens, queries });
  };
  const show = (partial) => {
    if (!isCurrent()) return;
    state.result = { view, now, ...partial };
    render();
  };
  const found = await VIEWS[view].compute(now, look, show);
  return found && now.clip === state.clip ? { view, now, ...found } : null;
}

// ---- showing

function render() {
  const { clip } = state;
  if (!clip) return;
  const view = VIEWS[state.view];
  const current = matching();
  // Until a quick network has answered, the picture before stays: it would flicker otherwise.
  const result = current ?? (state.slow ? null : previous());
  const now = current || !result ? scene() : result.now;
  view.draw(now, result, sourceCanvas, targetCanvas);
  element("explains").textContent = now.network.window ? `${view.explains} ${view.sees}` : view.explains;
  for (const [id, number] of [["from", state.source], ["to", state.target]]) {
    element(id).value = number;
    const { label, seconds } = clip.frames[number];
    const time = label ?? `${(seconds - clip.frames[0].seconds).toFixed(2)} s`;
    element(id).setAttribute("aria-valuetext", time);
    element(`${id}-time`).textContent = time;
  }
  const { x, y } = now.point;
  sourceCanvas.setAttribute(
    "aria-label",
    `Earlier frame of ${clip.title}, ${clip.alt}; point at ${Math.round(x)}, ${Math.round(y)}`,
  );
  targetCanvas.setAttribute("aria-label", view.alt(now, result));
  element("legend").replaceChildren(...view.legend(now, result, clear));
  if (current) {
    const where = state.page.network.compute === "page" ? "in your browser" : "with the server";
    const time = current.milliseconds ? ` · ${duration(current.milliseconds)} ${where}` : "";
    say(`${view.says(now, current)}${time}`);
  } else if (state.slow) {
    say("Computing …");
  } else if (state.pending && !result) {
    say("");
  }
}

/** The result before, if it is of the chosen view and clip. */
function previous() {
  const { result } = state;
  return result?.view === state.view && result.now.clip === state.clip ? result : null;
}

/** The result, if it is of the chosen view, clip and frames. */
function matching() {
  const { result } = state;
  if (!previous()) return null;
  const now = scene();
  const isTrack = state.view === "track";
  const same = result.now.source === now.source && (isTrack || result.now.target === now.target);
  if (!same) return null;
  if (isTrack) return result.now.points === now.points ? result : null;
  if (["left", "top"].some((side) => result.now.region[side] !== now.region[side])) return null;
  return state.view !== "heat" || result.now.token === now.token ? result : null;
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function say(words) {
  const status = element("status");
  if (status.textContent !== words) status.textContent = words;
}

function complain(error) {
  element("message").textContent = error.message;
  element("message").hidden = false;
  say("");
}

// ---- playing

function stop() {
  clearInterval(state.playing);
  state.playing = null;
  element("play").textContent = "Play";
  element("play").setAttribute("aria-pressed", "false");
}

function play() {
  if (state.playing !== null) return stop();
  element("play").textContent = "Pause";
  element("play").setAttribute("aria-pressed", "true");
  state.playing = setInterval(() => {
    // The clip goes on when the frame before is shown, so that a slow network skips none.
    if (!latest.running || state.view === "track") step(1);
  }, PLAY_MS);
}

function step(by) {
  const count = state.clip.frames.length;
  state.target = (state.target + by + count) % count;
  // A track is computed once for all times.
  if (state.view === "track" && matching()) render();
  else update();
}

// ---- input

function placeOf(event) {
  const box = sourceCanvas.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) / box.width) * state.clip.width - 0.5,
    y: ((event.clientY - box.top) / box.height) * state.clip.height - 0.5,
  };
}

function listen() {
  sourceCanvas.addEventListener("pointerdown", (event) => {
    if (!state.clip) return;
    if (state.view === "track") return addPoint(placeOf(event));
    sourceCanvas.setPointerCapture(event.pointerId);
    setPoint(placeOf(event));
    update();
  });
  sourceCanvas.addEventListener("pointermove", (event) => {
    if (state.view === "track" || !sourceCanvas.hasPointerCapture(event.pointerId)) return;
    setPoint(placeOf(event));
    update();
  });
  sourceCanvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!state.clip) return;
    if (event.key === "Enter" && state.view === "track") return addPoint(state.point);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const { region } = scene();
    const [x, y] = steps[event.key];
    setPoint({
      x: state.point.x + (x * region.width) / region.columns,
      y: state.point.y + (y * region.height) / region.rows,
    });
    update();
  });
  element("from").addEventListener("input", ({ target }) => {
    Object.assign(state, { source: Number(target.value), points: [] });
    update();
  });
  element("to").addEventListener("input", ({ target }) => step(Number(target.value) - state.target));
  element("play").addEventListener("click", play);
  clear.addEventListener("click", () => {
    state.points = [];
    update();
  });
  for (const radio of document.querySelectorAll("[name=view]"))
    radio.addEventListener("change", () => {
      state.view = radio.value;
      if (state.view === "track" && !state.points.length) state.points = [state.point];
      update();
    });
  element("files").addEventListener("change", ({ target }) => {
    chooseFiles(target.files);
    target.value = "";
  });
  listenToKeys({ isReady: () => state.clip, step, play });
  listenToDrops(element("drop"), chooseFiles);
}

listen();
start();
