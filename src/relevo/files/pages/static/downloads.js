// Downloads that outlive a failover: by the service worker where the browser trusts the connection, else by this page.
import { begin, end, isAway, reachable, say, sleep } from "./net.js";
import { Line } from "./panel.js";
import { pieces } from "./pieces.js";

const IN_PAGE_MAX_BYTES = 1 << 30; // kept by the browser until it is whole; a larger one is left to its own downloads
const ALIVE_MS = 10_000;

export async function download(url) {
  await reachable();
  const worker = navigator.serviceWorker?.controller;
  if (worker) {
    const timer = setInterval(() => worker.postMessage("alive"), ALIVE_MS); // else the browser ends it in the middle
    setTimeout(() => clearInterval(timer), 6 * 3600 * 1000);
    location.assign(url);
    return;
  }
  let head;
  try { head = await fetch(url, { method: "HEAD" }); } catch { return download(url); }
  if (isAway(head.status)) { await sleep(500); return download(url); }
  const size = Number(head.headers.get("Content-Length"));
  if (!head.ok || size > IN_PAGE_MAX_BYTES) { location.assign(url); return; }
  const named = head.headers.get("Content-Disposition")?.match(/filename\*=UTF-8''([^;]+)/)?.[1];
  new Fetching(url, size, head.headers.get("ETag"), decodeURIComponent(named ?? url.pathname.split("/").pop())).run();
}

class Fetching {
  constructor(url, size, etag, name) {
    Object.assign(this, { url, size, etag, name, parts: [], done: 0 });
    this.line = new Line(this.name, size, [["pause", () => this.pause()], ["resume", () => this.run()], ["cancel", () => this.cancel()]]);
  }

  pause() { this.line.set("paused"); this.control?.abort(); }
  cancel() { this.line.set("gone"); this.control?.abort(); this.line.remove(); }

  async run() {
    this.line.set("runs");
    this.control = new AbortController();
    try {
      const source = pieces(this.url.href, { from: this.done, size: this.size, etag: this.etag, signal: this.control.signal,
        away: () => begin(this), back: () => end(this) });
      for await (const piece of source) {
        this.parts.push(piece);
        this.done += piece.byteLength;
        this.line.progress(this.done);
        if (this.parts.length > 256) this.parts = [new Blob(this.parts)]; // blobs may lie on the disk
      }
    } catch (error) {
      if (this.line.state === "runs") this.line.set("failed", say(error.name === "Changed" ? "changed" : "state_failed"));
      return;
    } finally { end(this); }
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob(this.parts)), download: this.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    this.parts = [];
    this.line.set("done");
  }
}
