// The bytes of a file, by Range, from whichever server has it: what broke off goes on where it was. Used by page and worker.
const FIRST_PAUSE_MS = 250, LAST_PAUSE_MS = 1000, STALL_MS = 5000;
export const AWAY = [408, 423, 429, 502, 503, 504];
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

class Changed extends Error { name = "Changed"; }

function within(promise, ms, control) { // a dead server closes no connection
  let timer;
  const late = new Promise((_, failed) => { timer = setTimeout(() => { control.abort(); failed(new Error("late")); }, ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// size and etag: of the version that was begun; another one raises Changed. away and back tell when a server is missing.
export async function* pieces(url, { from, size, etag, signal, away = () => {}, back = () => {} }) {
  let pause = FIRST_PAUSE_MS;
  while (from < size) {
    signal?.throwIfAborted();
    const control = new AbortController();
    const stop = () => control.abort();
    signal?.addEventListener("abort", stop);
    try {
      const headers = { Range: `bytes=${from}-` };
      if (etag) headers["If-Range"] = etag;
      const answer = await within(fetch(url, { headers, cache: "no-store", signal: control.signal }), STALL_MS, control);
      if (AWAY.includes(answer.status)) throw new Error("away");
      if (answer.status !== 206) throw new Changed("another version");
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await within(reader.read(), STALL_MS, control);
        if (done) break;
        from += value.byteLength;
        pause = FIRST_PAUSE_MS;
        back();
        yield value;
      }
    } catch (error) {
      if (error instanceof Changed || signal?.aborted) throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      control.abort();
    }
    if (from < size) {
      away();
      await sleep(pause);
      pause = Math.min(2 * pause, LAST_PAUSE_MS);
    }
  }
}
