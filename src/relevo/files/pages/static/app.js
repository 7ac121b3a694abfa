// What JavaScript adds to the pages: links and forms that wait for the other server, choosing, uploads, downloads.
import { ask, loadWords, reachable, say } from "./net.js";
import { download } from "./downloads.js";
import { busy, start as startUploads, upload } from "./uploads.js";

const parser = new DOMParser();
let turn = 0; // a click while a page is being fetched takes its place

function show(text, url, { push = true, keepPlace = false } = {}) {
  const page = parser.parseFromString(text, "text/html");
  const fresh = page.getElementById("content");
  if (!fresh) { location.assign(url); return; }
  document.title = page.title;
  document.querySelector("header.bar").replaceWith(document.adoptNode(page.querySelector("header.bar")));
  document.getElementById("content").replaceWith(document.adoptNode(fresh));
  const language = page.documentElement.lang;
  const ready = language === document.documentElement.lang ? Promise.resolve() : loadWords(language);
  document.documentElement.lang = language;
  if (push) history.pushState({}, "", url);
  if (!keepPlace) { scrollTo(0, 0); document.getElementById("content").focus({ preventScroll: true }); }
  ready.then(dress);
}

export async function go(url, options) {
  const mine = ++turn;
  document.body.setAttribute("aria-busy", "true");
  const { answer } = await ask(url, { headers: { Accept: "text/html" } });
  const text = await answer.text();
  if (mine !== turn) return;
  document.body.removeAttribute("aria-busy");
  show(text, answer.url || url, options);
}

export const refresh = () => go(location.href, { push: false, keepPlace: true });

function tell(sentence, risk = true) {
  const line = document.createElement("p");
  line.className = risk ? "notice risk" : "notice";
  line.textContent = sentence;
  document.getElementById("notices")?.replaceChildren(line);
}

async function send(form, submitter) {
  const url = new URL(submitter?.getAttribute("formaction") || form.getAttribute("action"), location.href);
  const action = url.searchParams.get("action");
  const body = new URLSearchParams(new FormData(form, submitter));
  if (action === "zip") { await reachable(); native(url, body); return; }
  const { answer, retried } = await ask(url, { method: "POST", body, headers: { Accept: "text/html" } });
  const text = await answer.text();
  if (answer.ok) {
    show(text, answer.url, { push: answer.redirected }); // else the page is the answer to this one form
  } else if (retried && ["delete", "rename", "move", "folder"].includes(action) && [404, 409].includes(answer.status)) {
    await go(url.pathname.endsWith("/") ? url.pathname : url.pathname.replace(/[^/]*$/, "")); // the lost answer was a yes
  } else {
    tell(parser.parseFromString(text, "text/html").querySelector("main p")?.textContent ?? String(answer.status));
  }
}

function native(url, body) { // an answer that the browser saves
  const form = document.createElement("form");
  form.method = "post"; form.action = url;
  for (const [name, value] of body) form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
  document.body.append(form);
  form.submit();
  form.remove();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || link.target || link.hasAttribute("download") || link.classList.contains("skip")) return;
  event.preventDefault();
  if (url.searchParams.has("download")) download(url);
  else if (url.searchParams.has("zip")) reachable().then(() => location.assign(url));
  else go(url.href);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  event.preventDefault();
  if (form.enctype === "multipart/form-data") {
    form.closest("details")?.removeAttribute("open");
    upload([...(form.elements.file ?? form.elements.folder).files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    form.reset();
  } else if (form.method === "get") {
    go(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`);
  } else {
    send(form, event.submitter);
  }
});

addEventListener("popstate", () => go(location.href, { push: false }));
addEventListener("beforeunload", (event) => { if (busy()) event.preventDefault(); });
document.addEventListener("click", (event) => { // a click elsewhere, or Escape, closes what a button opened
  for (const tool of document.querySelectorAll("details.tool[open]")) if (!tool.contains(event.target)) tool.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const tool of document.querySelectorAll("details.tool[open]")) { tool.open = false; tool.querySelector("summary").focus(); }
  } else if (event.key === "/" && !event.target.closest("input, textarea, select")) {
    document.getElementById("search")?.focus();
    event.preventDefault();
  }
});

// --- choosing several ------------------------------------------------------------------------------------------------

function dress() {
  previews();
  places();
  copying();
  const form = document.getElementById("things"), tools = document.getElementById("chosen-tools");
  const folder = document.getElementById("folder-input");
  if (folder) folder.hidden = false;
  folder?.querySelector("input").addEventListener("change", (event) => event.target.form.requestSubmit());
  if (!form || !tools) return;
  const boxes = [...form.querySelectorAll("input[name=item]")];
  const all = Object.assign(document.createElement("input"), { type: "checkbox" });
  all.setAttribute("aria-label", say("select_all"));
  const label = document.createElement("label");
  label.append(all);
  form.querySelector("th.pick").replaceChildren(label);
  let last = null;
  const count = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    document.getElementById("chosen-count").textContent = chosen === 1 ? say("chosen_one") : say("chosen_many", { n: chosen });
    tools.classList.toggle("away", chosen === 0);
    tools.inert = chosen === 0;
    all.checked = chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  };
  all.addEventListener("change", () => { for (const box of boxes) box.checked = all.checked; count(); });
  form.addEventListener("click", (event) => {
    const at = boxes.indexOf(event.target);
    if (at < 0) return;
    if (event.shiftKey && last !== null) {
      for (const box of boxes.slice(Math.min(at, last), Math.max(at, last) + 1)) box.checked = event.target.checked;
    }
    last = at;
    count();
  });
  tools.classList.add("float");
  count();
}

// --- from one preview to the next, and where to move things -----------------------------------------------------------

let neighbours = []; // the addresses of the previews in the listing that was left last

function previews() {
  const here = location.pathname + location.search;
  const at = neighbours.indexOf(here), tools = document.querySelector(".show") && document.querySelector(".tools");
  if (!tools) {
    neighbours = [...document.querySelectorAll(".list td.name > a")].map((link) => link.getAttribute("href")).filter((href) => href.includes("preview=1"));
  } else if (at >= 0) {
    for (const [step, rel] of [[1, "next"], [-1, "prev"]]) {
      if (!neighbours[at + step]) continue;
      const link = Object.assign(document.createElement("a"), { className: "button", href: neighbours[at + step], rel, textContent: say(rel) });
      tools.prepend(link);
    }
  }
}

document.addEventListener("keydown", (event) => {
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (rel && !event.altKey && !event.ctrlKey && !event.target.closest("input, textarea, select, audio, video")) {
    document.querySelector(`.tools a[rel=${rel}]`)?.click();
  }
});

function places() { // the folders below what is typed so far
  const field = document.getElementById("to");
  if (!field) return;
  const list = Object.assign(document.createElement("datalist"), { id: "places" });
  field.after(list);
  field.setAttribute("list", "places");
  let shown = null;
  const fill = async () => {
    const parent = field.value.replace(/[^/]*$/, "").replace(/^\/?/, "/");
    if (parent === shown) return;
    shown = parent;
    const { answer } = await ask(parent.split("/").map(encodeURIComponent).join("/"), { headers: { Accept: "application/json" } });
    const found = answer.ok ? (await answer.json()).entries : [];
    if (parent !== shown) return;
    list.replaceChildren(...found.filter((one) => one.type === "folder").map((one) => new Option("", parent + one.name)));
  };
  field.addEventListener("input", fill);
  field.addEventListener("focus", fill);
}

function copying() { // the address of a link that was just made
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const field = document.getElementById(button.dataset.copy);
    button.hidden = false;
    field.addEventListener("focus", () => field.select());
    button.addEventListener("click", async () => {
      field.select();
      try { await navigator.clipboard.writeText(field.value); } catch { document.execCommand("copy"); } // without TLS there is no clipboard
      tell(say("copied"), false);
    });
  }
}

const own = document.getElementById("script");
await loadWords(document.documentElement.lang);
startUploads(refresh);
dress();
if ("serviceWorker" in navigator && isSecureContext) {
  navigator.serviceWorker.register(own.dataset.worker, { scope: "/", type: "module" }).catch(() => {});
}
document.documentElement.dataset.ready = "1";
