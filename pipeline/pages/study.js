"use strict";
// Which run a video is of is not in this page: key.json has it. Prompts are foreign text and stay text.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const questions = Object.keys(data.questions);
const steps = data.trials.length * questions.length;
const KEYS = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "same", ArrowDown: "same" };
const memory = `stylecrafter ${data.study}`;
let urls = [];
let shownTrial = null;
let since = 0;
let state = remembered() ?? fresh();

function fresh() {
  const order = data.trials.map((_, index) => index);
  for (let last = order.length - 1; last > 0; last--) {
    const other = random(last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  const letters = crypto.getRandomValues(new Uint8Array(12));
  return {
    rater: [...letters].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    name: "", started: new Date().toISOString(), order, flipped: order.map(() => random(2) === 1), step: 0, votes: {},
  };
}

function random(below) {
  return Math.floor((crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32) * below);
}

function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(memory));
    return kept && kept.order.length === data.trials.length ? kept : null;
  } catch {
    return null; // a browser that keeps nothing for local files
  }
}

function remember() {
  try {
    localStorage.setItem(memory, JSON.stringify(state));
  } catch {
    // then only this visit counts
  }
}

function show(section) {
  for (const id of ["intro", "trial", "end"]) byId(id).hidden = id !== section;
}

function movie(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  urls.push(URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })));
  return urls.at(-1);
}

function figure(side, base64) {
  const node = document.createElement("figure");
  const video = document.createElement("video");
  Object.assign(video, { muted: true, loop: true, playsInline: true, src: movie(base64) });
  video.setAttribute("aria-label", `${side} video`);
  const caption = document.createElement("figcaption");
  caption.textContent = side;
  node.append(video, caption);
  return node;
}

function showStep() {
  if (state.step >= steps) return finish();
  const place = Math.floor(state.step / questions.length);
  const trial = data.trials[state.order[place]];
  show("trial");
  if (shownTrial !== trial) showTrial(trial, state.flipped[place]);
  byId("question").textContent = data.questions[questions[state.step % questions.length]];
  byId("progress").textContent = `Pair ${place + 1} of ${data.trials.length}`;
  byId("bar").value = state.step / steps;
  byId("back").disabled = state.step === 0;
  const vote = state.votes[`${trial.name} ${questions[state.step % questions.length]}`];
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.setAttribute("aria-pressed", vote !== undefined && sideOf(vote.choice, state.flipped[place]) === button.dataset.answer);
  }
  byId("question").focus({ preventScroll: true });
  since = performance.now();
}

function showTrial(trial, flipped) {
  shownTrial = trial;
  for (const video of document.querySelectorAll("#pair video")) {
    video.removeAttribute("src"); // a video that still loads must not ask for what is taken away
    video.load();
  }
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  byId("prompt").textContent = trial.prompt;
  byId("references").replaceChildren(...trial.references.map((source, index) => {
    const image = document.createElement("img");
    image.src = source;
    image.alt = `Style picture ${index + 1}`;
    return image;
  }));
  const [left, right] = flipped ? [trial.second, trial.first] : [trial.first, trial.second];
  byId("pair").replaceChildren(figure("Left", left), figure("Right", right));
  play();
}

function play() {
  const still = byId("still").getAttribute("aria-pressed") === "true";
  for (const video of document.querySelectorAll("#pair video")) {
    if (still) video.pause();
    else video.play().catch(() => {}); // replaced before it could begin
  }
}

const sideOf = (choice, flipped) => (choice === "same" ? "same" : (choice === "first") !== flipped ? "left" : "right");

function answer(side) {
  const place = Math.floor(state.step / questions.length);
  const flipped = state.flipped[place];
  const trial = data.trials[state.order[place]].name;
  const question = questions[state.step % questions.length];
  const choice = side === "same" ? "same" : (side === "left") !== flipped ? "first" : "second";
  state.votes[`${trial} ${question}`] = { trial, question, choice, flipped, seconds: Math.round((performance.now() - since) / 100) / 10 };
  state.step += 1;
  remember();
  showStep();
}

function goBack() {
  state.step = Math.max(0, state.step - 1);
  remember();
  showStep();
}

function finish() {
  const given = Object.keys(state.votes).length;
  show("end");
  byId("said").textContent = `You answered ${given} of ${steps} questions.`;
  byId("again").hidden = given === 0;
  byId("end-title").focus();
}

function download() {
  const ballot = {
    study: data.study, rater: state.rater, name: state.name, started: state.started, finished: new Date().toISOString(),
    votes: Object.values(state.votes),
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(ballot, null, 1)], { type: "application/json" }));
  link.download = `votes-${data.study}-${state.rater.slice(0, 8)}.json`;
  link.click();
}

byId("name").value = state.name;
byId("start").textContent = state.step ? "Go on" : "Start";
byId("start").addEventListener("click", () => { state.name = byId("name").value.trim(); remember(); showStep(); });
byId("back").addEventListener("click", goBack);
byId("stop").addEventListener("click", finish);
byId("again").addEventListener("click", () => { state.step = Math.min(state.step, steps - 1); showStep(); });
byId("download").addEventListener("click", download);
byId("still").addEventListener("click", () => {
  byId("still").setAttribute("aria-pressed", byId("still").getAttribute("aria-pressed") !== "true");
  play();
});
for (const button of document.querySelectorAll("[data-answer]")) button.addEventListener("click", () => answer(button.dataset.answer));
addEventListener("keydown", (event) => {
  if (byId("trial").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in KEYS) {
    event.preventDefault();
    answer(KEYS[event.key]);
  } else if (event.key === "Backspace") {
    event.preventDefault();
    goBack();
  }
});
if (matchMedia("(prefers-reduced-motion: reduce)").matches) byId("still").setAttribute("aria-pressed", "true");
show("intro");
