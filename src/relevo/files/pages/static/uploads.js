// Uploads by tus: several at once, each goes on where the server has it, whatever happens in between.
import { begin, end, isAway, reachable, say, sleep } from "./net.js";
import { Line, unfinished } from "./panel.js";

const PARALLEL = 3, STALL_MS = 6000;
const AT_ONCE_BYTES = 1 << 20; // a larger one has its address first, so that it can go on where it was
const queue = [];
let running = 0, refresh = () => {}, rule = null, asking = Promise.resolve();

export const busy = unfinished;

function library() { // fetched when it is first needed
  return globalThis.tus ? Promise.resolve() : new Promise((done, failed) => {
    const own = document.getElementById("script");
    const script = Object.assign(document.createElement("script"), { src: own.dataset.tus, nonce: own.nonce, onload: done });
    script.onerror = () => { script.remove(); failed(new Error("tus")); };
    document.head.append(script);
  });
}

const folderHere = () => {
  const path = location.pathname.endsWith("/") ? location.pathname : location.pathname.replace(/[^/]*$/, "");
  return path.startsWith("/.relevo/") ? "" : decodeURIComponent(path).replace(/^\//, "");
};

const through = () => document.getElementById("drop")?.dataset.url ?? ""; // the link that takes files here

export function upload(files) {
  const folder = folderHere(), door = through();
  for (const { file, path } of files) queue.push(new Job(file, door ? path.split("/").pop() : folder + path, door));
  if (queue.length && running === 0) rule = null;
  next();
}

function next() {
  while (running < PARALLEL) {
    const at = queue.findIndex((job) => job.line.state === "waits");
    if (at < 0) return;
    const [job] = queue.splice(at, 1);
    running++;
    job.run().finally(() => { running--; if (running === 0 && !queue.length) refresh(); next(); });
  }
}

class Job {
  constructor(file, path, door) {
    Object.assign(this, { file, path, door, ifexists: "refuse" });
    this.line = new Line(path, file.size, [["pause", () => this.pause()], ["resume", () => this.resume()], ["cancel", () => this.cancel()]]);
  }

  pause() { this.line.set("paused"); this.wake?.(); }
  resume() { this.line.set("waits"); queue.push(this); next(); }

  cancel() {
    this.line.set("gone");
    const at = queue.indexOf(this);
    if (at >= 0) queue.splice(at, 1);
    this.wake?.();
    if (this.tus) reachable().then(() => this.tus.abort(true)).catch(() => {});
    this.line.remove();
  }

  async run() {
    this.line.set("runs");
    for (;;) {
      const result = await this.attempt();
      if (this.line.state !== "runs") return; // paused or given up
      if (result === "stored") { this.line.progress(this.file.size); this.line.set("done"); return; }
      if (result === "exists") {
        if (!(await this.decide())) return;
      } else if (result === "again") {
        begin(this);
        await sleep(300);
        await reachable();
        end(this);
      } else { this.line.set("failed", result); return; }
    }
  }

  // One try: "stored", "exists", "again", or a sentence that tells why not.
  async attempt() {
    try { await library(); } catch { return "again"; }
    return new Promise((resolve) => {
      let last = performance.now();
      const finish = (result) => { clearInterval(timer); this.wake = null; resolve(result); };
      const stop = (result) => { this.tus.abort().catch(() => {}); finish(result); };
      const timer = setInterval(() => { // nothing moves: is the server that we talk to still the one?
        if (performance.now() - last < STALL_MS) return;
        last = performance.now();
        stop("again");
      }, 1000);
      this.wake = () => stop("stopped");
      this.tus ??= new globalThis.tus.Upload(this.file, {
        endpoint: `${this.door}/.relevo/tus/`, retryDelays: null, uploadDataDuringCreation: this.file.size <= AT_ONCE_BYTES, removeFingerprintOnSuccess: true,
        headers: { Accept: "application/json", "Accept-Language": document.documentElement.lang },
        fingerprint: async (file) => ["relevo", this.door, this.path, file.size, file.lastModified].join("/"),
      });
      Object.assign(this.tus.options, {
        metadata: { path: this.path, ifexists: this.ifexists },
        onProgress: (done) => { last = performance.now(); this.line.progress(done); if (done === this.file.size) last += 120_000; },
        onSuccess: () => finish("stored"),
        onError: (error) => finish(this.judge(error)),
      });
      this.begin().catch(() => finish("again"));
    });
  }

  async begin() {
    if (!this.tus.url) { // one that was broken off by a closed window goes on too
      const [earlier] = await this.tus.findPreviousUploads();
      if (earlier) this.tus.resumeFromPreviousUpload(earlier);
    }
    this.tus.start();
  }

  judge(error) {
    const answer = error.originalResponse;
    const status = answer ? answer.getStatus() : 0;
    let told = {};
    try { told = JSON.parse(answer.getBody()); } catch { /* no sentence came with it */ }
    if (told.error === "degraded") return told.what;
    if (!status || isAway(status)) return "again";
    if (told.error === "exists") return "exists";
    if (told.error === "tus_offset") return "again";
    if (told.error === "tus_gone") { this.tus = null; return "again"; } // expired: from the beginning
    return told.what ?? String(status);
  }

  // Something has this name: asked once for each, or for all that follow.
  async decide() {
    const answer = rule ?? await (asking = asking.then(() => rule ?? question(this.path)));
    if (answer === "skip") { this.line.set("gone"); this.line.remove(); return false; }
    if (answer === "both") this.path = await freeName(this.path);
    else this.ifexists = "replace";
    this.tus = null;
    return true;
  }
}

async function freeName(path) {
  const [, stem, ending] = path.match(/^(.*?[^/])(\.[^./]*)?$/);
  for (let number = 2; ; number++) {
    const candidate = `${stem} (${number})${ending ?? ""}`;
    await reachable();
    const answer = await fetch("/" + candidate.split("/").map(encodeURIComponent).join("/"), { method: "HEAD" });
    if (answer.status === 404) return candidate;
  }
}

function question(path) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    const title = Object.assign(document.createElement("h2"), { id: "conflict", textContent: say("conflict", { name: path }) });
    const every = Object.assign(document.createElement("input"), { type: "checkbox" });
    const label = document.createElement("label");
    label.className = "row";
    label.append(every, say("for_all"));
    const buttons = document.createElement("p");
    buttons.className = "row";
    let result = "skip";
    for (const word of ["replace", "both", "skip"]) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: say(`conflict_${word}`) });
      button.addEventListener("click", () => { result = word; dialog.close(); });
      buttons.append(button);
    }
    dialog.setAttribute("aria-labelledby", "conflict");
    dialog.append(title, label, buttons);
    dialog.addEventListener("close", () => { if (every.checked) rule = result; dialog.remove(); resolve(result); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// --- dragging ---------------------------------------------------------------------------------------------------------

async function below(entry, path) {
  if (entry.isFile) return [{ file: await new Promise((done, failed) => entry.file(done, failed)), path: path + entry.name }];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...await below(one, `${path}${entry.name}/`));
  }
}

export function start(onDone) {
  refresh = onDone;
  let depth = 0;
  const over = (on) => document.body.classList.toggle("over", on);
  const carries = (event) => event.dataTransfer?.types.includes("Files") && document.getElementById("file"); // where nothing may be put, nothing is caught
  addEventListener("dragenter", (event) => { if (carries(event)) { depth++; over(true); event.preventDefault(); } });
  addEventListener("dragleave", (event) => { if (carries(event) && --depth <= 0) { depth = 0; over(false); } });
  addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const loose = entries.length ? [] : [...event.dataTransfer.files].map((file) => ({ file, path: file.name }));
    const found = await Promise.all(entries.map((entry) => below(entry, "")));
    upload([...loose, ...found.flat()]);
  });
}
