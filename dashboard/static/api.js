// Questions to the server, and the live stream that says when to ask again.

/** Fetch JSON; a non-2xx answer is an error that carries the server's own words. */
export async function ask(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw Object.assign(new Error(body.error || `${path} answered ${response.status}`), { status: response.status });
  }
  return response.json();
}

/** Ask no more often than each `minMs`, only while the page is seen, and never twice at once. */
export class Refresher {
  constructor(load, minMs) {
    this.load = load;
    this.minMs = minMs;
    this.last = -Infinity;
    this.timer = null;
    this.busy = false;
    this.wanted = false;
  }

  want({ now = false } = {}) {
    this.wanted = true;
    if (now) this.last = -Infinity;
    if (now && this.timer !== null) {
      clearTimeout(this.timer);
      this.timer = null;
    }
    if (this.busy || this.timer !== null || document.hidden) return;
    const wait = Math.max(0, this.last + this.minMs - performance.now());
    this.timer = setTimeout(() => this.run(), wait);
  }

  async run() {
    this.timer = null;
    this.busy = true;
    this.wanted = false;
    this.last = performance.now();
    try {
      await this.load();
    } catch {
      // The stream's state tells the visitor; the next change of revision asks again.
    } finally {
      this.busy = false;
      if (this.wanted) this.want();
    }
  }
}

const RETRY_MS = 5_000;

/** The live stream: reconnects, also after a refusal, and rests while the page is hidden. */
export class Live {
  constructor({ onUpdate, onState }) {
    this.onUpdate = onUpdate;
    this.onState = onState;
    this.source = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.start()));
  }

  start() {
    if (this.source !== null || document.hidden) return;
    this.source = new EventSource("/api/stream");
    this.source.addEventListener("update", (event) => {
      this.onState("live");
      this.onUpdate(JSON.parse(event.data));
    });
    this.source.addEventListener("error", () => {
      this.onState("lost");
      if (this.source !== null && this.source.readyState === EventSource.CLOSED) {
        this.source = null;
        setTimeout(() => this.start(), RETRY_MS);
      }
    });
  }

  rest() {
    this.source?.close();
    this.source = null;
    this.onState("paused");
  }
}
