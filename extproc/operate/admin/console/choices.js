// What is chosen: the view, the time, the group and the filters. The address holds all of it, so a view can be kept.
import {$, cut, el, link, named, plain, show} from "./dom.js";
import {DAY, HOUR, MINUTE} from "./format.js";

const FIELDS = ["consumer", "team", "key", "model", "provider", "target", "status", "error"];
const PUT = "f.";  // a filter in the address: f.team=search
const FIRST = {view: "overview", period: "", from: "", to: "", group: "team", label: "agent", measure: "cost_usd", outcome: "", clock: "answer",
  id: "", run: "", who: ""};
const PERIODS = ["hour", "day", "yesterday", "week", "month", "thirty", "year", "own"];
const NEXT = {team: "consumer", consumer: "model", model: "provider", provider: "target", target: "consumer", key: "model"};

export const state = {};
export let filters = new Map();
let listener = () => {};
export const onChange = called => { listener = called; };

export const known = name => FIELDS.includes(name) || /^label\.[^,\p{Cc}]+$/u.test(name);

export function readAddress() {
  Object.assign(state, FIRST);
  filters = new Map();
  for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
    if (name.startsWith(PUT)) { if (known(name.slice(PUT.length)) && filters.size < 12) filters.set(name.slice(PUT.length), value.slice(0, 256)); }
    else if (Object.hasOwn(state, name)) state[name] = value.slice(0, 512);
}

export function keepAddress(how) {  // pushState: the browser's back button returns to the choices before
  const chosen = Object.entries(state).filter(([name, value]) => value !== "" && (value !== FIRST[name] || name === "view"));
  const hash = "#" + new URLSearchParams([...chosen, ...[...filters].map(([name, value]) => [PUT + name, value])]);
  if (hash !== location.hash) history[how](null, "", hash);
}

export function checkChoices(views) {  // the address is anybody's word
  if (!Object.hasOwn(views, state.view)) state.view = FIRST.view;
  if (state.period && !PERIODS.includes(state.period)) state.period = "week";
  if (!["cost_usd", "tokens", "requests"].includes(state.measure)) state.measure = FIRST.measure;
  for (const id of ["group", "outcome", "clock"]) {
    $(id).value = state[id];
    if ($(id).selectedIndex < 0) $(id).value = FIRST[id];
    state[id] = $(id).value;
  }
  $("label").value = state.label;
  for (const radio of $("measure").querySelectorAll("input")) radio.checked = radio.value === state.measure;
}

export function choose(more) {
  Object.assign(state, {id: "", run: "", who: ""}, more);
  listener();
}

// --- filters

export function pick(field, value, text = named(value)) {  // a value that becomes a filter
  if (!value || !known(field)) return el("span", {title: text}, text);
  return link(`pick ${field} ${value}`, text, () => drill(field, value), {title: "Only " + text});
}

export function drill(field, value) {
  filters.set(field, String(value));
  const group = groupBy() === field ? {group: NEXT[field] ?? "consumer"} : {};
  if (group.group) $("group").value = group.group;
  const stays = ["overview", "requests"].includes(state.view) || field === "consumer" && ["keys", "models", "runs"].includes(state.view);
  choose({...group, ...(stays ? {} : {view: "overview"})});
}

export function drawFilters(offered) {
  const chips = [...filters].map(([field, value]) => el("button", {class: "chip", type: "button", "data-key": "filter " + field,
    "aria-label": `Remove the filter ${field} ${cut(value)}`, onclick: () => { filters.delete(field); choose({}); }},
  `${plain(field.replace("label.", "label "))}: ${named(value)} ✕`));
  const field = el("select", {id: "filter-field", "aria-label": "Field"}, ...[...FIELDS, "label"].map(name => el("option", {}, name)));
  const label = el("input", {id: "filter-label", "aria-label": "Label's name of the filter", placeholder: "label's name", size: 10, maxlength: 64, hidden: ""});
  const value = el("input", {id: "filter-value", "aria-label": "Value", placeholder: "value", size: 14, maxlength: 256});
  field.onchange = () => { label.hidden = field.value !== "label"; };
  const form = el("form", {onsubmit: event => {
    event.preventDefault();
    const name = field.value === "label" ? "label." + label.value.trim().toLowerCase() : field.value;
    if (known(name) && value.value) { filters.set(name, value.value); choose({}); }
  }}, field, label, value, el("button", {}, "Filter"));
  show("filters", ...chips, ...(offered ? [form] : []));
}

// --- times

// The chosen time: [start, end, resolution], in milliseconds. Resolutions have 12 to 93 steps.
export function span(period = state.period) {
  const now = Date.now(), date = new Date(now), [year, month] = [date.getUTCFullYear(), date.getUTCMonth()], midnight = Date.UTC(year, month, date.getUTCDate());
  const hour = Math.floor(now / HOUR) * HOUR, minute = Math.floor(now / MINUTE) * MINUTE, week = [midnight - 6 * DAY, midnight + DAY, "day"];
  const [from, to] = [Date.parse(state.from + "Z"), Date.parse(state.to + "Z")];
  const own = from < to ? [from, to, to - from <= 2 * HOUR ? "minute" : to - from <= 4 * DAY ? "hour" : to - from <= 93 * DAY ? "day" : "month"] : week;
  return {hour: [minute - 59 * MINUTE, minute + MINUTE, "minute"], day: [hour - 23 * HOUR, hour + HOUR, "hour"], yesterday: [midnight - DAY, midnight, "hour"], week, own,
    thirty: [midnight - 29 * DAY, midnight + DAY, "day"], month: [Date.UTC(year, month), Date.UTC(year, month + 1), "day"],
    year: [Date.UTC(year, month - 11), Date.UTC(year, month + 1), "month"]}[period] ?? week;
}

// The period before the chosen one, up to the same share of it that has passed now.
export function spanBefore() {
  const [start, end] = span(), passed = Math.min(end, Date.now()) - start;
  const begin = state.period === "month" ? Date.UTC(new Date(start).getUTCFullYear(), new Date(start).getUTCMonth() - 1)
    : state.period === "year" ? Date.UTC(new Date(start).getUTCFullYear() - 1, new Date(start).getUTCMonth()) : start - (end - start);
  return [begin, Math.min(start, begin + passed)];
}

export function steps() {
  const [start, end, resolution] = span(), times = [], step = {minute: MINUTE, hour: HOUR, day: DAY}[resolution];
  for (let time = step ? Math.floor(start / step) * step : Date.UTC(new Date(start).getUTCFullYear(), new Date(start).getUTCMonth()); time < end;) {
    times.push(time);
    time = step ? time + step : Date.UTC(new Date(time).getUTCFullYear(), new Date(time).getUTCMonth() + 1);
  }
  return {times, resolution};
}

// --- questions to the API

export const groupBy = () => state.group === "label" ? "label." + (state.label.trim().toLowerCase() || "agent") : state.group;
const rfc3339 = time => new Date(time).toISOString().slice(0, 19) + "Z";
export const between = ([start, end]) => ({start: rfc3339(start), end: rfc3339(end)});
export const filtered = (path, parameters) => path + "?" + new URLSearchParams([...Object.entries(parameters), ...filters]);
export const spanned = (path, more) => filtered(path, {...between(span()), ...more});
export const usagePath = more => spanned("/usage", {resolution: span()[2], group_by: groupBy(), ...more});
