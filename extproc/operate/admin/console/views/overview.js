// Overview: what was spent, by whom, whether budgets and providers hold, and what was refused.
import {ask, read} from "../api.js";
import {SERIES, bars} from "../chart.js";
import {between, choose, filters, groupBy, pick, spanBefore, spanned, state, usagePath} from "../choices.js";
import {$, cut, el, link, named, note, show, table} from "../dom.js";
import {HOUR, change, count, measured, millis, percent, short, usd, utc} from "../format.js";
import {healthOf, reason} from "../meanings.js";
import {door, said} from "../page.js";
import {healthBy, markCooled, strip} from "../strip.js";
import {closest} from "./budgets.js";

const SHOWN = 50, SLOTS = [...Array(SERIES).keys()];
let slots = new Map(), slotsOf = "";

const html = `
<section id="totals" aria-label="Totals"></section>
<div class="two-thirds stack"><section aria-labelledby="usage-title">
  <div class="bar"><h2 id="usage-title">Usage</h2>
    <fieldset id="measure"><legend>Measure</legend>
      <label><input type="radio" name="measure" value="cost_usd" checked>Spend</label>
      <label><input type="radio" name="measure" value="tokens">Tokens</label>
      <label><input type="radio" name="measure" value="requests">Requests</label></fieldset>
    <label>by <select id="group"><option>team</option><option>consumer</option><option>model</option><option>provider</option>
      <option>target</option><option>key</option><option>operation</option><option value="label">label…</option></select></label>
    <input id="label" aria-label="Label's name" placeholder="agent" maxlength="64" size="12" hidden>
    <button id="csv" type="button">CSV</button></div>
  <div id="chart"></div><div id="groups" class="scroll" tabindex="0" role="region" aria-label="Usage by group"></div>
</section>
<section aria-labelledby="providers-title"><div class="bar"><h2 id="providers-title">Providers, last 24 hours</h2></div><div id="providers" class="scroll"></div></section></div>
<section class="third" aria-labelledby="closest-title"><div class="bar"><h2 id="closest-title">Budgets</h2><button class="link small" type="button" id="all-budgets">All</button></div>
  <div id="closest"></div>
  <div class="bar later"><h2>Refused and failed</h2></div><div id="refusals" class="scroll"></div>
  <div id="findings" class="scroll"></div></section>`;

function parts() {
  const before = read("/usage?" + new URLSearchParams([...Object.entries({...between(spanBefore()), group_by: groupBy()}), ...filters])).catch(() => null);
  return [
    [async () => [await read(usagePath({})), await before], drawUsage, ["groups", "chart"]],
    [() => read(usagePath({resolution: "total", group_by: "error,status"})), drawRefusals, ["refusals"]],
    [() => Promise.all([read("/budgets"), read("/questions")]), drawClosest, ["closest"]],
    [askHealth, drawHealth, ["providers"]],
    [() => read(spanned("/findings", {})), drawFindings, ["findings"]]];
}

function start() {
  for (const radio of $("measure").querySelectorAll("input")) radio.onchange = () => choose({measure: radio.value});
  for (const id of ["group", "label"]) $(id).onchange = () => choose({[id]: $(id).value});
  $("all-budgets").onclick = () => choose({view: "budgets"});
  $("csv").onclick = async () => {
    try {
      const file = el("a", {href: URL.createObjectURL(await (await ask(usagePath({format: "csv"}))).blob()), download: "usage.csv"});
      file.click();
      URL.revokeObjectURL(file.href);
    } catch (error) { said(error); }
  };
}

// --- usage

const tile = (title, value, below, kind = "soft") => el("div", {}, el("span", {class: "soft"}, title), el("b", {}, value), el("span", {class: "small " + kind}, below));
const joined = (...texts) => texts.filter(Boolean).join(" · ");
const tokensOf = sums => sums.input_tokens + sums.output_tokens;

function drawTotals(total, before) {
  const compared = of => before ? change(of(total), of(before)) : "";
  show("totals",
    tile("Spend", usd(total.cost_usd), total.unpriced ? count(total.unpriced) + " requests of unknown price" : joined(compared(sums => Number(sums.cost_usd)), total.cost_usd + " USD"), total.unpriced ? "warn" : "soft"),
    tile("Requests", count(total.requests), joined(compared(sums => sums.requests), total.errors ? count(total.errors) + " failed" : "none failed")),
    tile("Tokens", short(tokensOf(total)), joined(compared(tokensOf), short(total.input_tokens) + " in", short(total.output_tokens) + " out")),
    ...(total.cache_hits || total.shadow_hits ? [tile(total.cache_hits ? "Saved" : "Would save", usd(total.cache_hits ? total.saved_usd : total.would_save_usd),
      count(total.cache_hits) + " kept answers" + (total.shadow_hits ? ", " + count(total.shadow_hits) + " in shadow" : ""))] : []),
    tile("From cache", total.input_tokens ? percent(total.cached_tokens / total.input_tokens) : "–", short(total.cached_tokens) + " tokens" + (Number(total.prompt_saved_usd) ? ", saved " + usd(total.prompt_saved_usd) : "")),
    tile("Refused", count(total.refused), total.requests ? percent(total.refused / total.requests) + " of requests" : "no requests", total.refused ? "warn" : "soft"));
}

function summedBy(field, report) {
  const groups = new Map();
  for (const row of report.data) {
    const name = named(row.group[field]), sum = groups.get(name) ?? {raw: row.group[field], requests: 0, refused: 0, errors: 0, input_tokens: 0, output_tokens: 0, cost_usd: 0, saved_usd: 0, would_save_usd: 0};
    for (const key of Object.keys(sum)) if (key !== "raw") sum[key] += Number(row[key]);
    groups.set(name, sum);
  }
  return groups;
}

function drawUsage([report, before]) {
  drawTotals(report.total, before?.total);
  const field = report.group_by[0], groups = summedBy(field, report), earlier = before ? summedBy(field, before) : new Map();
  if (!groups.size) return drawNothing();
  const sorted = [...groups].sort((a, b) => measured(b[1], state.measure) - measured(a[1], state.measure) || b[1].requests - a[1].requests);
  giveColours(field, sorted.slice(0, SERIES).map(([name]) => name));
  bars("chart", report, field, slots);
  const all = sorted.reduce((sum, [, row]) => sum + measured(row, state.measure), 0), hits = report.total.cache_hits || report.total.shadow_hits;
  show("groups", table([field.replace("label.", "label "), "spend, USD", "share", "before", "requests", "refused", "failed", "input tokens", "output tokens", ...(hits ? ["saved, USD", "would save, USD"] : [])],
    sorted.slice(0, SHOWN).map(([name, row]) => [el("span", {title: name}, el("i", {class: "s" + (slots.get(name) ?? SERIES)}), pick(field, row.raw, name)), usd(row.cost_usd),
      percent(all ? measured(row, state.measure) / all : 0), earlier.has(name) ? change(measured(row, state.measure), measured(earlier.get(name), state.measure)) || "–" : before?.data.length ? "new" : "–",
      count(row.requests), count(row.refused), count(row.errors), count(row.input_tokens), count(row.output_tokens), ...(hits ? [usd(row.saved_usd), usd(row.would_save_usd)] : [])]),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), ...(sorted.length > SHOWN || report.truncated ? [note("Only the largest are shown; the CSV and extproc usage have more.")] : []),
    ...Object.entries(report.capacity).map(([provider, each]) => note(`${provider}: ${usd(each.usd)} of own hardware, ${usd(each.used_usd)} used by requests, ${usd(each.idle_usd)} idle.`)));
}

function giveColours(field, first) {  // a group keeps its colour from one look to the next
  if (slotsOf !== field) [slots, slotsOf] = [new Map(), field];
  for (const name of [...slots.keys()]) if (!first.includes(name)) slots.delete(name);
  for (const name of first) if (!slots.has(name)) slots.set(name, SLOTS.find(slot => ![...slots.values()].includes(slot)));
}

function drawNothing() {
  show("chart");
  if (filters.size) return show("groups", note("Nothing in this period has these properties."));
  const at = door() ? `http${door().tls ? "s" : ""}://${location.hostname}:${door().port}` : "$GATEWAY";
  show("groups", note("Nothing in this period yet. Send a request with a gateway key, here in $KEY:"), el("pre", {},
    "curl " + at + "/v1/chat/completions -H \"authorization: Bearer $KEY\" \\\n  -H 'content-type: application/json' " +
    "-H 'x-ai-agent: hello' \\\n  -d '" + JSON.stringify({model: door()?.model || "assistant", messages: [{role: "user", content: "Hello"}]}) + "'"));
}

// --- budgets, refusals, findings

function drawClosest([list, questions]) {
  const open = questions.data.filter(one => one.state === "open").length;
  show("closest", ...(open ? [link("open questions", open === 1 ? "One request waits for an answer" : `${count(open)} requests wait for an answer`, () => choose({view: "budgets"}), {class: "link warn"})] : []), ...closest(list.data, 3));
}

function drawRefusals(report) {
  const found = new Map();
  for (const {group, requests, errors} of report.data) {
    const [field, value] = group.error ? ["error", group.error] : ["status", String(group.status)];  // a provider's own refusal has no code of the gateway
    const one = found.get(field + value) ?? {field, value, requests: 0};
    one.requests += group.error ? requests : errors;
    found.set(field + value, one);
  }
  const rows = [...found.values()].filter(row => row.requests).sort((a, b) => b.requests - a.requests).slice(0, 8);
  show("refusals", rows.length ? table(["reason", "requests"], rows.map(({field, value, requests}) => [
    link(`refused ${field} ${value}`, field === "status" ? `a provider's answer ${cut(value)}` : reason(value) || cut(value), () => { filters.set(field, value); choose({view: "requests"}); }, {title: field === "status" ? "status " + cut(value) : cut(value)}), count(requests)]), [1])
    : note("Nothing was refused and nothing failed in this period."));
}

function drawFindings(answer) {
  if (!answer.data.length) return show("findings");
  show("findings", el("div", {class: "bar later"}, el("h2", {}, "Findings of guardrails"), link("findings", "Show these requests", () => choose({view: "requests", outcome: "findings"}), {class: "link small"})),
    table(["guardrail and action", "requests", "latest, UTC"], answer.data.slice(0, 5).map(each => [cut(each.finding), count(each.exchanges), utc(each.latest, 5, 16)]), [1, 2]));
}

// --- providers

const lastDay = () => { const hour = Math.floor(Date.now() / HOUR) * HOUR; return [hour - 23 * HOUR, hour + HOUR]; };
function askHealth() {
  const day = {...between(lastDay()), group_by: "provider"};
  return Promise.all([read("/usage?" + new URLSearchParams({...day, resolution: "hour"})), read("/latency?" + new URLSearchParams({...day, resolution: "total"})), read("/providers")]);
}

const byMinute = hour => choose({view: "models", period: "own", from: utc(hour, 0, 16).replace(" ", "T"), to: utc(hour + HOUR, 0, 16).replace(" ", "T")});

function drawHealth([usage, latency, places]) {
  const [begin] = lastDay(), providers = healthBy(usage, group => group.provider, begin, HOUR, 24);
  const one = name => { if (!providers.has(name)) providers.set(name, {cells: Array(24).fill(null), requests: 0, errors: 0}); return providers.get(name); };
  for (const [place, known] of Object.entries(places.data)) {
    const found = one(place.split("/")[0]), health = healthOf(known);
    markCooled(found, [known], begin, HOUR);
    if (!found.state || health[2] > found.state[2]) found.state = health;
  }
  const times = new Map(latency.data.map(row => [row.group.provider, row]));
  const rows = [...providers].sort(([, a], [, b]) => (b.state?.[2] ?? -1) - (a.state?.[2] ?? -1) || b.requests - a.requests).slice(0, 12).map(([name, known]) => [
    pick("provider", name), known.state ? el("span", {class: known.state[1]}, known.state[0]) : el("span", {class: "soft"}, "at rest"), strip(known, begin, HOUR, "24 hours", byMinute),
    count(known.requests), count(known.errors), millis(times.get(name)?.p50_ms), millis(times.get(name)?.p95_ms)]);
  show("providers", rows.length ? table(["provider", "now", "by hour", "requests", "failed", "median", "95 %"], rows, [3, 4, 5, 6]) : note("No provider was asked in the last 24 hours."));
}

export const overview = {title: "Overview", html, parts, start, timed: true, filtered: true};
