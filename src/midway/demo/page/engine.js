// Computation of a pair of frames: by onnxruntime-web in a worker, or by the server that serves the
// page. Both take the same request and give the same answer.
//
// Request: {source, target, grid, tokens, queries}, with images from `resized`, patch numbers, and
// descriptors to find in the target (or null).
// Answer: heat and similarity (one map a token), descriptor (one a token), gates (one map a block),
// milliseconds.

import { normalise } from "./fit.js";

const BUSY_RETRY_MS = 700;
const BUSY_RETRIES = 20;

export async function openEngine(network, say) {
  return network.compute === "page" ? LocalEngine.open(network, say) : new ServerEngine(network);
}

class LocalEngine {
  static async open(network, say) {
    const engine = new LocalEngine(network);
    await engine.ask({ kind: "open", network }, (megabytes) =>
      say(`Loading the network: ${megabytes.toFixed(1)} MB …`),
    );
    return engine;
  }

  constructor(network) {
    this.network = network;
    this.asked = new Map();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = () => {
      for (const { reject } of this.asked.values()) reject(new Error("the network did not start"));
    };
  }

  receive({ id, answer, error, loaded }) {
    const { resolve, reject, progress } = this.asked.get(id);
    if (loaded !== undefined) return progress?.(loaded);
    this.asked.delete(id);
    if (error) reject(new Error(error));
    else resolve(answer);
  }

  ask(message, progress) {
    return new Promise((resolve, reject) => {
      const id = (this.count = (this.count ?? 0) + 1);
      this.asked.set(id, { resolve, reject, progress });
      this.worker.postMessage({ id, ...message });
    });
  }

  look(request) {
    const [source, target] = [request.source, request.target].map((image) =>
      normalise(image.slice(), this.network),
    );
    return this.ask({ kind: "look", request: { ...request, source, target } });
  }
}

class ServerEngine {
  constructor(network) {
    this.network = network;
  }

  async look({ source, target, grid, tokens, queries }) {
    const query = new URLSearchParams({ rows: grid.rows, columns: grid.columns, token: tokens });
    const parts = [bytesOf(source), bytesOf(target)];
    for (const each of queries ?? []) parts.push(each);
    const start = performance.now();
    for (let tries = 0; ; tries++) {
      const response = await fetch(`look?${query}`, { method: "POST", body: new Blob(parts) }).catch(
        () => {
          throw new Error("the server no longer answers; start midway demo again");
        },
      );
      if (response.status === 503 && tries < BUSY_RETRIES) {
        await new Promise((resolve) => setTimeout(resolve, BUSY_RETRY_MS));
        continue;
      }
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.error);
      answer.descriptor = answer.descriptor.map((each) => Float32Array.from(each));
      return { ...answer, milliseconds: performance.now() - start };
    }
  }
}

function bytesOf(image) {
  return Uint8Array.from(image, (value) => Math.min(255, Math.max(0, Math.round(value))));
}

/**
 * Run only the latest of many requests: one at a time, and at most one waiting. A request that a
 * newer one replaces resolves to null, so that a hundred clicks hold the memory of two.
 */
export class Latest {
  constructor(run) {
    this.run = run;
    this.running = false;
    this.waiting = null;
    this.count = 0;
  }

  ask(make) {
    this.waiting?.resolve(null);
    return new Promise((resolve, reject) => {
      this.waiting = { make, resolve, reject };
      if (!this.running) this.next();
    });
  }

  async next() {
    this.running = true;
    while (this.waiting) {
      const { make, resolve, reject } = this.waiting;
      this.waiting = null;
      this.count++;
      await this.run(make()).then(resolve, reject);
    }
    this.running = false;
  }
}
