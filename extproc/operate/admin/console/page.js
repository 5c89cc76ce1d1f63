// The page around the views: it asks the API for what the view shows, and draws the answers, every few seconds.
import {follow, me, may, read, whoami} from "./api.js";
import {checkChoices, choose, drawFilters, filters, keepAddress, onChange, readAddress, span, state, between} from "./choices.js";
import {$, el, note, plain, show} from "./dom.js";
import {utc} from "./format.js";

const EVERY = 5000, SELDOM = 30000;
const FITTING = ["hour", "day", "week"];
let views = {}, paused = false, timer, round = 0, due = 0, told = null;

// Each view: title, role, html, parts() -> [question, drawing, ids of its places], start(); `timed`: the period counts;
// `every`: milliseconds between two looks; `live`: draws an event of /events, and is true if the view has to look again.
export async function begin(all) {
  views = all;
  for (const [name, view] of Object.entries(views)) {
    const place = el("div", {class: "view", id: "view-" + name, hidden: ""});
    place.innerHTML = view.html;  // constants of the views' files
    $("main").append(place);
  }
  for (const view of Object.values(views)) view.start?.();
  readAddress();
  checkChoices(views);
  onChange(changed);
  $("period").onchange = () => choosePeriod($("period").value);
  for (const id of ["from", "to"]) $(id).onchange = () => choose({[id]: $(id).value});
  $("pause").onclick = pause;
  document.addEventListener("visibilitychange", () => { clearTimeout(timer); listen(); if (!document.hidden && !paused) refresh(); });
  addEventListener("hashchange", () => { readAddress(); checkChoices(views); draw(); keepAddress("replaceState"); refresh(); });
  draw();
  await whoami();
  await fitPeriod();
  draw();
  keepAddress("replaceState");
  refresh();
}

function choosePeriod(period) {
  const [start, end] = span();  // own dates begin as what is shown
  choose(period === "own" ? {period, from: utc(start, 0, 16).replace(" ", "T"), to: utc(end, 0, 16).replace(" ", "T")} : {period, from: "", to: ""});
}

// Without a period in the address: the shortest one that shows most of the week's requests.
async function fitPeriod() {
  if (state.period) return;
  state.period = "week";
  try {
    const found = await Promise.all(FITTING.map(period => read("/usage?" + new URLSearchParams({...between(span(period)), resolution: "total"}))));
    const requests = found.map(report => report.total.requests), most = requests.at(-1);
    if (most) state.period = FITTING[requests.findIndex(number => number >= most * 0.8)];
  } catch { /* the parts of the view say what does not answer */ }
}

function pause() {
  paused = !paused;
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", paused);
  refresh();
}

function changed() {
  draw();
  keepAddress("pushState");
  refresh();
}

export function draw() {  // what depends on choices alone
  if (!may(views[state.view].role ?? "viewer")) state.view = "overview";
  const view = views[state.view];
  $("label").hidden = state.group !== "label";
  $("period").value = state.period || "week";
  $("times-chosen").hidden = !view.timed;
  $("own").hidden = state.period !== "own";
  for (const id of ["from", "to"]) $(id).value = state[id];
  for (const name of Object.keys(views)) $("view-" + name).hidden = name !== state.view;
  show("views", ...Object.entries(views).filter(([, each]) => may(each.role ?? "viewer")).map(([name, each]) =>
    el("button", {type: "button", "data-key": "view " + name, ...(name === state.view ? {"aria-current": "page"} : {}), onclick: () => choose({view: name})}, each.title)));
  view.draw?.();
  drawFilters(view.filtered);
}

export async function refresh() {
  clearTimeout(timer);
  listen();
  $("main").ariaBusy = true;  // what is shown belongs to the choices before
  const begun = Date.now(), mine = ++round, parts = [...views[state.view].parts(), [() => read("/me"), drawStale, []]];
  const failed = await Promise.all(parts.map(async ([get, drawn, places]) => {
    try { const data = await get(); if (mine === round) drawn(data); }
    catch (error) {
      if (mine === round) places.forEach((place, index) => show(place, ...(index ? [] : [note("Not available: " + error.message + ".", "bad")])));
      return true;
    }
  }));
  if (mine !== round) return;
  $("main").ariaBusy = false;
  $("state").textContent = failed.every(Boolean) ? "no connection" : "as of " + utc(Date.now(), 11, 19) + " UTC";
  // Reports over long times take longer: they have a tenth of the time at most.
  const waits = Math.max(views[state.view].every ?? EVERY, 10 * (Date.now() - begun));
  due = begun + waits;
  listen();
  if (looks()) timer = setTimeout(refresh, told?.heard ? Math.max(SELDOM, waits) : waits);
}

const looks = () => !paused && !document.hidden && !$("login").open && !views[state.view].still?.();

// Follows /events while a view is shown that draws them. When they end, the view asks every few seconds.
function listen() {
  const view = views[state.view], wanted = looks() && view.live;
  if (told && !(wanted && told.view === view)) { told.stop.abort(); told = null; }
  if (told || !wanted) return;
  const mine = told = {view, stop: new AbortController(), heard: false};
  const soon = time => { clearTimeout(timer); timer = setTimeout(refresh, Math.max(0, time - Date.now())); };
  follow("/events", {signal: mine.stop.signal}, event => {
    if (told !== mine) return;
    mine.heard = true;
    if (view.live(event)) soon(due);
  }).catch(() => {}).finally(() => { if (told === mine) { told = null; if (looks()) soon(Math.max(due, Date.now() + EVERY)); } });
}

function drawStale(answer) {
  $("stale").textContent = plain([answer.stale && "Settings are stale: " + answer.stale, answer.certificate].filter(Boolean).join("; "));
}

export const said = error => { $("state").textContent = error.message; };

// A handler of a form or button: errors become text at a place.
export const act = (place, work) => async event => {
  event?.preventDefault();
  $(place).textContent = "";
  try { await work(event); } catch (error) { $(place).textContent = error.message; }
};

// Offers the names of models to a form's field, which begins with one of them. `answer` is that of GET /models.
export function offerModels(field, list, answer) {
  if (!$(field).value) $(field).value = me?.door?.model ?? answer.data[0]?.name ?? "";
  show(list, ...answer.data.filter(model => model.targets.length).map(model => el("option", {value: model.name})));
}

export const consumerOnly = () => filters.has("consumer") ? {consumer: filters.get("consumer")} : {};
export const door = () => me?.door;
export const traceOf = id => me?.trace_link?.replaceAll("{id}", encodeURIComponent(id));
