// The service worker: a download goes through it, so that the browser sees one answer even when two servers gave it.
import { AWAY, pieces, sleep } from "./pieces.js";

const TRIES = 240, PAUSE_MS = 500; // a server that has the files is waited for

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("message", () => {}); // "alive": a page says that a download is not over

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const plain = event.request.method === "GET" && event.request.mode === "navigate";
  if (plain && url.origin === location.origin && url.searchParams.has("download")) event.respondWith(answer(url.href));
});

async function begun(url) {
  for (let number = 0; ; number++) {
    try {
      const head = await fetch(url, { method: "HEAD", cache: "no-store" });
      if (!AWAY.includes(head.status) || number >= TRIES) return head;
    } catch (error) {
      if (number >= TRIES) throw error;
    }
    await sleep(PAUSE_MS);
  }
}

async function answer(url) {
  const head = await begun(url);
  const size = Number(head.headers.get("Content-Length")), etag = head.headers.get("ETag");
  if (!head.ok || !size || !etag) return fetch(url);
  const control = new AbortController();
  const source = pieces(url, { from: 0, size, etag, signal: control.signal });
  const body = new ReadableStream({
    async pull(sink) {
      try {
        const { done, value } = await source.next();
        if (done) sink.close();
        else sink.enqueue(value);
      } catch (error) { sink.error(error); }
    },
    cancel() { control.abort(); },
  });
  const headers = new Headers();
  for (const name of ["Content-Type", "Content-Length", "Content-Disposition", "Last-Modified", "Content-Security-Policy", "X-Content-Type-Options"]) {
    if (head.headers.has(name)) headers.set(name, head.headers.get(name));
  }
  return new Response(body, { headers });
}
