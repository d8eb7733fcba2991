// The network in a worker of its own, so that the page stays responsive.

import * as ort from "./ort/onnxruntime.js";

let session, network;

self.onmessage = async ({ data: { id, kind, ...message } }) => {
  try {
    const answer = kind === "open" ? await open(id, message.network) : await look(message.request);
    self.postMessage({ id, answer });
  } catch (error) {
    self.postMessage({ id, error: String(error.message ?? error) });
  }
};

async function open(id, opened) {
  network = opened;
  let megabytes = 0;
  const progress = (bytes) => {
    megabytes += bytes / 1e6;
    self.postMessage({ id, loaded: megabytes });
  };
  const [runtime, model] = await Promise.all([
    bytesOf("ort/onnxruntime.wasm.gz", progress),
    bytesOf(network.model, progress),
  ]);
  // One thread: more would need headers that few file servers send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await decompressed(runtime);
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

async function look({ source, target, grid, tokens, queries }) {
  const start = performance.now();
  const size = [1, 3, grid.rows * network.patch, grid.columns * network.patch];
  const asked = new Float32Array(tokens.length * network.width);
  queries?.forEach((query, i) => asked.set(query, i * network.width));
  const found = await session.run({
    source: new ort.Tensor("float32", source, size),
    target: new ort.Tensor("float32", target, size),
    token: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [tokens.length]),
    query: new ort.Tensor("float32", asked, [tokens.length, network.width]),
  });
  const maps = (name) => rowsOf(found[name]);
  return {
    heat: maps("heat"),
    similarity: maps("similarity"),
    descriptor: maps("descriptor"),
    gates: maps("gates"),
    milliseconds: performance.now() - start,
  };
}

/** Copies of a tensor's entries along its first axis. */
function rowsOf({ dims, data }) {
  const size = data.length / dims[0];
  return Array.from({ length: dims[0] }, (_, i) => data.slice(i * size, (i + 1) * size));
}

async function bytesOf(name, progress) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} is missing (${response.status}); write the page again`);
  const parts = [];
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    progress(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Some file servers decompress .gz files themselves; the first two bytes tell. */
async function decompressed(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
