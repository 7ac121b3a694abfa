// Requests that outlive a failover: what cannot be answered now waits, is asked again, and a line says so meanwhile.
const HEALTH = "/.relevo/health";
const FIRST_PAUSE_MS = 250, LAST_PAUSE_MS = 1000, PROBE_AFTER_MS = 3000, PROBE_TIMEOUT_MS = 2000;

let words = {};
let node = "";           // the server that answered last
const waiting = new Set(); // what is being asked again

export async function loadWords(language) {
  words = (await import(`./texts.${language}.js`)).default;
}

export const say = (code, params = {}) => words[code].replace(/\{(\w+)\}/g, (_, name) => params[name]);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Whoever waits for the other server calls begin, and end when it has its answer; the line is there while anybody does.
export function begin(token) {
  waiting.add(token);
  document.getElementById("switching").textContent = say("switching");
  document.body.classList.add("switching");
}

export function end(token) {
  if (waiting.delete(token) && waiting.size === 0) {
    document.getElementById("switching").textContent = "";
    document.body.classList.remove("switching");
  }
}

export const isAway = (status) => [408, 423, 429, 502, 503, 504].includes(status);

// The name of the server that has the files, or "" when none answers now.
export async function probe() {
  try {
    const answer = await fetch(HEALTH, { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    const found = await answer.json();
    return found.state === "open" ? found.node : "";
  } catch {
    return "";
  }
}

export async function reachable() {
  const token = {};
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LAST_PAUSE_MS)) {
    const found = await probe();
    if (found) { node = found; end(token); return; }
    begin(token);
    await sleep(pause);
  }
}

// Calls `lost` when the server that was asked is gone: a dead one closes no connection, so the other one must be asked.
export function watch(lost) {
  const known = node;
  let away = false, ended = false;
  (async () => {
    await sleep(PROBE_AFTER_MS);
    while (!ended) {
      const found = await probe();
      if (ended) return;
      if (!found) away = true;
      else if (away || (known && found !== known)) { node = found; lost(); return; }
      await sleep(LAST_PAUSE_MS);
    }
  })();
  return () => { ended = true; };
}

// fetch, until a server that has the files answers. `retried` in the result: an earlier try may have had its effect.
export async function ask(url, options = {}) {
  const token = {};
  let retried = false;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LAST_PAUSE_MS)) {
    const control = new AbortController();
    const unwatch = watch(() => control.abort());
    try {
      const answer = await fetch(url, { ...options, signal: control.signal });
      if (!isAway(answer.status)) {
        if (!node) probe().then((found) => { node = found; });
        return { answer, retried };
      }
      const told = await answer.text();
      if (answer.status === 503 && options.method === "POST" && told.includes('data-code="degraded"')) {
        return { answer: new Response(told, { status: 503 }), retried };
      }
    } catch {
      retried = true;
    } finally {
      unwatch();
      end(token);
    }
    begin(token);
    await sleep(pause);
    await reachable();
    end(token);
  }
}
