// The list of what is on its way, up or down: a line for each with its bar, and one for all.
import { say } from "./net.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const lines = new Set();
const RATE_OVER_MS = 3000, DONE_SHOWN_MS = 8000;
let timer = 0;

export function bytes(count) {
  let unit = 0;
  for (; count >= 1023.95 && unit < UNITS.length - 1; unit++) count /= 1024;
  const number = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: unit ? 1 : 0, maximumFractionDigits: unit ? 1 : 0 });
  return `${number.format(count)} ${UNITS[unit]}`;
}

const make = (tag, props = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...children);
  return made;
};

const whole = make("progress", { max: 1, value: 0 });
const summary = make("span", { className: "soft" });
const list = make("ul");
const close = make("button", { type: "button", className: "small", hidden: true });
const panel = make("section", { id: "transfers", hidden: true }, make("h2"), whole, summary, close, list);
panel.setAttribute("role", "region");
const empty = () => { lines.clear(); list.replaceChildren(); panel.hidden = true; };
close.addEventListener("click", empty);

export class Line {
  // actions: [word, what it does] for the buttons; total in bytes
  constructor(name, total, actions) {
    this.total = total;
    this.done = 0;
    this.state = "waits";
    this.samples = [];
    this.bar = make("progress", { max: total || 1, value: 0 });
    this.bar.setAttribute("aria-label", name);
    this.text = make("span", { className: "soft" });
    this.buttons = Object.fromEntries(actions.map(([word, act]) => {
      const button = make("button", { type: "button", className: "small", textContent: say(word) });
      button.setAttribute("aria-label", `${say(word)}: ${name}`);
      button.addEventListener("click", act);
      return [word, button];
    }));
    this.item = make("li", {}, make("span", { className: "what", textContent: name }), this.bar, this.text,
      make("span", { className: "buttons" }, ...Object.values(this.buttons)));
    list.append(this.item);
    lines.add(this);
    if (!panel.isConnected) document.body.append(panel);
    panel.hidden = false;
    this.set("waits");
  }

  set(state, sentence = "") {
    this.state = state;
    this.sentence = sentence;
    this.item.className = state;
    for (const [word, button] of Object.entries(this.buttons)) {
      button.hidden = { pause: state !== "runs" && state !== "waits", resume: state !== "paused" && state !== "failed" }[word] ?? ["done", "failed", "gone"].includes(state);
    }
    if (["done", "failed", "gone"].includes(state)) this.samples = [];
    this.draw();
  }

  progress(done) {
    this.done = done;
    const now = performance.now();
    this.samples.push([now, done]);
    while (this.samples.length > 2 && now - this.samples[0][0] > RATE_OVER_MS) this.samples.shift();
    this.draw();
  }

  get rate() {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || last[0] - first[0] < 200 || this.state !== "runs") return 0;
    return (last[1] - first[1]) * 1000 / (last[0] - first[0]);
  }

  draw() {
    this.bar.value = this.total ? this.done : Number(this.state === "done");
    const rate = this.rate ? ` · ${bytes(this.rate)}/s` : "";
    const amount = `${bytes(this.done)} / ${bytes(this.total)}${rate}`;
    this.text.textContent = this.sentence || (this.state === "runs" ? amount : say(`state_${this.state}`));
    draw();
  }

  remove() { lines.delete(this); this.item.remove(); draw(); }
}

function draw() {
  const known = [...lines].filter((line) => line.state !== "gone");
  const total = known.reduce((sum, line) => sum + line.total, 0), done = known.reduce((sum, line) => sum + line.done, 0);
  const rate = known.reduce((sum, line) => sum + line.rate, 0);
  const open = known.filter((line) => !["done", "failed"].includes(line.state)).length;
  panel.querySelector("h2").textContent = say("transfers");
  panel.setAttribute("aria-label", say("transfers"));
  whole.setAttribute("aria-label", say("all_together"));
  whole.max = total || 1;
  whole.value = open ? done : total || 1;
  summary.textContent = open ? `${say("all_open", { n: open })} · ${bytes(done)} / ${bytes(total)}${rate ? ` · ${bytes(rate)}/s` : ""}` : say("all_done");
  close.textContent = say("close");
  close.hidden = open > 0;
  clearTimeout(timer); // what went well goes away by itself, unless somebody is there with the keyboard
  if (!open && known.every((line) => line.state === "done")) timer = setTimeout(() => panel.contains(document.activeElement) || empty(), DONE_SHOWN_MS);
}

export const unfinished = () => [...lines].some((line) => ["runs", "waits", "paused"].includes(line.state));
