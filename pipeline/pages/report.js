"use strict";
// Text from prompts, errors and URIs is hostile: it goes into the page as text nodes and attributes, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const { rows, scores, pageSize } = data;
const count = rows.id.length;
const byId = (id) => document.getElementById(id);
const stillPlease = matchMedia("(prefers-reduced-motion: reduce)").matches;
const state = { view: "gallery", page: 0, still: stillPlease, found: [] };

function element(tag, options = {}, ...children) {
  const { className, text, ...attributes } = options;
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

const number = (value, digits = 4) => (value === null ? "–" : value.toFixed(digits));
const seconds = (value) => `${number(value, value < 10 ? 2 : 1)} s`;
const status = (i) => data.statuses[rows.status[i]];
const prompt = (i) => data.prompts[rows.prompt[i]] ?? "(no prompt)";
const styles = (i) => data.styles[rows.style[i]] ?? [];
const errorOf = (i) => data.errors[rows.error[i]] ?? "";
const classOf = (i) => data.errorClasses[rows.errorClass[i]] ?? "";
const variant = (i) => data.variants[rows.variant[i]] ?? "";
const label = (i) => [rows.id[i], rows.sample[i] && `sample ${rows.sample[i]}`, variant(i).replaceAll(",", ", ")].filter(Boolean).join(", ");

// ---- pictures -------------------------------------------------------------------------------------------------

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !target.src) target.src = target.dataset.src;
    if (isIntersecting && !state.still) play(target);
    else target.pause();
  }
}, { rootMargin: "150px" });

function play(video) {
  const started = video.play();
  if (started) started.catch(() => {}); // the page was scrolled on before it could begin
}

function media(i, options) {
  const href = rows.video[i];
  if (!href) {
    const words = status(i) === "ok" ? "nothing made" : `${status(i)}: ${classOf(i).replaceAll("_", " ")}`;
    return element("div", { className: "none bad", text: words });
  }
  const still = !href.endsWith(".mp4");
  const node = still ? element("img", { src: href, loading: "lazy", alt: `Image: ${prompt(i)}` })
    : element("video", { loop: true, playsinline: true, preload: "none", "aria-label": `Video: ${prompt(i)}`, ...options });
  node.addEventListener("error", () => {
    watcher.unobserve(node);
    node.replaceWith(element("div", { className: "none" }, element("a", { href, text: `${still ? "image" : "video"} not reachable from here` })));
  });
  if (still) return node;
  node.muted = true;
  node.dataset.src = href;
  watcher.observe(node);
  return node;
}

function reference(style) {
  if (style.thumb !== null) {
    return element("img", { src: data.thumbs[style.thumb], alt: `Style reference ${style.name}` });
  }
  return element("div", { className: "none", text: style.name });
}

// ---- lists ----------------------------------------------------------------------------------------------------

function facts(i) {
  const line = element("p", { className: "facts" }, mark(i));
  for (const { name, label: title } of scores) {
    if (rows[name][i] !== null) line.append(element("span", { text: `${title.replace("CLIP-", "")} ` }, element("b", { text: number(rows[name][i]) })));
  }
  if (rows.device_s[i]) line.append(element("span", { text: seconds(rows.device_s[i]) }));
  return line;
}

const mark = (i) => element("span", { className: "status" }, element("i", { className: `dot ${status(i)}` }), status(i));

function card(i) {
  const references = element("div", { className: "refs" }, ...styles(i).slice(0, 3).map(reference));
  return element("li", { className: "card" },
    element("div", { className: "pictures" }, references, media(i, {})),
    element("div", { className: "words" },
      element("button", { type: "button", className: "prompt", text: prompt(i), onclick: () => openDetail(i), "aria-haspopup": "dialog" }),
      facts(i)));
}

function tableOf(found) {
  const heads = ["Row", "Status", "Prompt", ...scores.map((score) => score.label), "Device", "Error"];
  const body = found.map((i) => element("tr", {},
    element("th", { scope: "row" }, element("button", { type: "button", text: label(i), onclick: () => openDetail(i), "aria-haspopup": "dialog" })),
    element("td", {}, mark(i)),
    element("td", { className: "text", text: prompt(i) }),
    ...scores.map(({ name }) => element("td", { className: "number", text: number(rows[name][i]) })),
    element("td", { className: "number", text: rows.device_s[i] ? seconds(rows.device_s[i]) : "–" }),
    element("td", { className: "text", text: errorOf(i) })));
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })));
  return element("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Rows" },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function show() {
  const pages = Math.max(1, Math.ceil(state.found.length / pageSize));
  state.page = Math.min(Math.max(0, state.page), pages - 1);
  const found = state.found.slice(state.page * pageSize, (state.page + 1) * pageSize);
  byId("list").querySelectorAll("video").forEach((node) => watcher.unobserve(node));
  byId("list").replaceChildren(
    !found.length ? element("p", { text: "No row is like that." })
      : state.view === "table" ? tableOf(found)
      : element("ul", { className: "gallery" }, ...found.map(card)));
  byId("count").textContent = `${state.found.length} of ${count} rows`;
  byId("where").textContent = `Page ${state.page + 1} of ${pages}`;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page >= pages - 1;
  byId("as-gallery").setAttribute("aria-pressed", state.view === "gallery");
  byId("as-table").setAttribute("aria-pressed", state.view === "table");
}

// ---- filters --------------------------------------------------------------------------------------------------

const CONTROLS = ["q", "status", "error", "score", "low", "high", "order"];
const orders = [["", "as in the manifest"], ["slow", "slowest first"], ["late", "newest first"],
  ...scores.flatMap(({ name, label: title }) => [[`${name}:up`, `${title}, lowest first`], [`${name}:down`, `${title}, highest first`]])];
const haystacks = new Map();

function haystack(i) {
  if (!haystacks.has(i)) {
    haystacks.set(i, [label(i), prompt(i), errorOf(i), ...styles(i).map((style) => style.name)].join("\n").toLowerCase());
  }
  return haystacks.get(i);
}

function matches(i, wanted) {
  if (wanted.status && status(i) !== wanted.status) return false;
  if (wanted.error && classOf(i) !== wanted.error) return false;
  const value = wanted.score && rows[wanted.score][i];
  if (wanted.low !== "" && !(wanted.score && value !== null && value >= Number(wanted.low))) return false;
  if (wanted.high !== "" && !(wanted.score && value !== null && value <= Number(wanted.high))) return false;
  return wanted.words.every((word) => haystack(i).includes(word));
}

function keyOf(order) {
  if (order === "slow") return (i) => (rows.device_s[i] ? -rows.device_s[i] : Infinity);
  if (order === "late") return (i) => -rows.finished[i];
  const [name, direction] = order.split(":");
  return (i) => (rows[name][i] === null ? Infinity : direction === "up" ? rows[name][i] : -rows[name][i]);
}

function filter(page = 0) {
  const wanted = Object.fromEntries(CONTROLS.map((id) => [id, byId(id).value.trim()]));
  wanted.words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
  state.found = [...Array(count).keys()].filter((i) => matches(i, wanted));
  if (wanted.order) {
    const key = keyOf(wanted.order);
    state.found.sort((a, b) => key(a) - key(b) || a - b);
  }
  state.page = page;
  remember(wanted);
  show();
}

function remember(wanted) {
  const kept = new URLSearchParams();
  for (const id of CONTROLS) {
    if (wanted[id] && !(id === "score" && !wanted.low && !wanted.high)) kept.set(id, wanted[id]);
  }
  if (state.page) kept.set("page", state.page + 1);
  if (state.view === "table") kept.set("view", "table");
  if (kept.size || location.hash.startsWith("#rows?")) history.replaceState(null, "", kept.size ? `#rows?${kept}` : "#rows");
}

function restore() {
  if (!location.hash.startsWith("#rows?")) return filter();
  const kept = new URLSearchParams(location.hash.slice("#rows?".length));
  for (const id of CONTROLS) if (kept.has(id)) byId(id).value = kept.get(id);
  state.view = kept.get("view") === "table" ? "table" : "gallery";
  filter((Number(kept.get("page")) || 1) - 1);
  byId("rows").scrollIntoView();
}

function goTo(page) {
  filter(page);
  byId("rows").scrollIntoView();
  byId("rows").focus({ preventScroll: true });
}

function fill(select, choices) {
  byId(select).replaceChildren(...choices.map(([value, text]) => element("option", { value, text })));
}

// ---- one row --------------------------------------------------------------------------------------------------

function openDetail(i) {
  byId("detail-title").textContent = label(i);
  const movie = media(i, { controls: true });
  const link = (href, text) => (href ? element("a", { href, text }) : document.createTextNode(text));
  const settings = data.settings[rows.settings[i]] ?? {};
  const timings = data.stages.map((name, s) => [name, rows.timings[i] && rows.timings[i][s]]).filter(([, value]) => value);
  const facts = [
    ["Prompt", prompt(i)],
    ["Status", status(i) + (classOf(i) ? `, ${classOf(i)}` : "")],
    ["Error", errorOf(i)],
    ...scores.map(({ name, label: title }) => [title, rows[name][i] === null ? "" : number(rows[name][i], 6)]),
    ["Style", element("span", {}, ...styles(i).flatMap((style) => [link(style.href, style.uri), element("br")]))],
    ["File", rows.video[i] && link(rows.video[i], `${data.output}/${rows.video[i].replace("../", "")}`)],
    ["Commit", link(rows.commit[i], "the record as JSON")],
    ["Settings", Object.entries(settings).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${value}`).join(", ")],
    ["Seed", rows.seed[i] ?? ""],
    ["Time", timings.map(([name, value]) => `${name} ${seconds(value)}`).join(", ")],
    ["Size", rows.bytes[i] ? `${(rows.bytes[i] / 1024).toFixed(0)} KiB` : ""],
    ["Made", `${new Date(rows.finished[i]).toISOString().replace("T", " ").slice(0, 19)} UTC, run ${data.runs[rows.run[i]]}, ${data.places[rows.place[i]]}, attempts ${rows.attempts[i]}`],
    ["Fusion scale", rows.fusion[i] === null ? "" : `${number(rows.fusion[i], 3)} (mean of the layers)`],
    ["Meta", data.metas[rows.meta[i]] ?? ""],
  ].filter(([, value]) => value);
  const pairs = facts.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", {}, value)]);
  byId("detail-body").replaceChildren(
    element("div", { className: "detail-pictures" }, ...styles(i).slice(0, 4).map(reference), movie),
    element("dl", { className: "pairs" }, ...pairs));
  byId("detail").showModal();
}

function look(title, order, text) {
  const key = keyOf(order);
  const first = [...Array(count).keys()].filter((i) => status(i) === "ok" && key(i) !== Infinity).sort((a, b) => key(a) - key(b)).slice(0, 6);
  const items = first.map((i) => element("li", {}, element("button", { type: "button", onclick: () => openDetail(i), "aria-haspopup": "dialog" },
    element("span", { className: "figure", text: text(i) }), element("span", { className: "words", text: prompt(i) }))));
  return first.length && element("div", {}, element("h3", { text: title }), element("ol", {}, ...items));
}

// ---- begin ----------------------------------------------------------------------------------------------------

const tally = (values) => values.reduce((counts, value) => counts.set(value, (counts.get(value) ?? 0) + 1), new Map());
const perStatus = tally(rows.status.map((code) => data.statuses[code]));
const perClass = tally(rows.errorClass.filter((code) => code !== null).map((code) => data.errorClasses[code]));
fill("status", [["", "all"], ...[...perStatus].map(([name, number]) => [name, `${name} (${number})`])]);
fill("error", [["", "any or none"], ...[...perClass].map(([name, number]) => [name, `${name} (${number})`])]);
fill("score", scores.map(({ name, label: title }) => [name, title]));
fill("order", orders);
let typing;
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
byId("filters").addEventListener("reset", () => setTimeout(filter));
byId("previous").addEventListener("click", () => goTo(state.page - 1));
byId("next").addEventListener("click", () => goTo(state.page + 1));
for (const view of ["gallery", "table"]) byId(`as-${view}`).addEventListener("click", () => { state.view = view; filter(state.page); });
byId("motion").addEventListener("click", () => setStill(!state.still));
byId("close").addEventListener("click", () => byId("detail").close());
byId("detail").addEventListener("click", (event) => { if (event.target === byId("detail")) byId("detail").close(); });
byId("detail").addEventListener("close", () => byId("detail-body").replaceChildren());
for (const button of document.querySelectorAll("[data-show-error]")) {
  button.addEventListener("click", () => { byId("filters").reset(); byId("error").value = button.dataset.showError; goTo(0); });
}

function setStill(still) {
  state.still = still;
  byId("motion").setAttribute("aria-pressed", still);
  for (const node of document.querySelectorAll("video")) {
    watcher.unobserve(node); // the watcher looks anew at what it is given, and starts or pauses it
    watcher.observe(node);
  }
}

byId("looks")?.append(...[
  ...scores.map(({ name, label: title }) => look(`Lowest ${title}`, `${name}:up`, (i) => number(rows[name][i]))),
  look("Slowest", "slow", (i) => seconds(rows.device_s[i])),
].filter(Boolean));
byId("motion").setAttribute("aria-pressed", state.still);
addEventListener("hashchange", () => location.hash.startsWith("#rows?") && restore());
restore();
