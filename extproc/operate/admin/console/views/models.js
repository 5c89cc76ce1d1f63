// Models: the names that clients may give, with prices and the state of their targets, and how fast they answer.
import {may, read} from "../api.js";
import {timeLines} from "../chart.js";
import {between, choose, filters, pick, span, spanned, state} from "../choices.js";
import {$, cut, el, link, named, note, show, table} from "../dom.js";
import {MINUTE, count, millis, percent, seconds, short, usd, utc} from "../format.js";
import {healthOf} from "../meanings.js";
import {consumerOnly} from "../page.js";
import {healthBy, markCooled, strip} from "../strip.js";
import {propose} from "./settings.js";

const html = `
<section aria-labelledby="models-title"><div class="bar"><h2 id="models-title">Models</h2></div><div id="models" class="scroll"></div></section>
<section aria-labelledby="health-title"><div class="bar"><h2 id="health-title">By minute</h2></div><div id="health" class="scroll"></div></section>
<section aria-labelledby="latency-title"><div class="bar"><h2 id="latency-title">Latency</h2>
  <label>of <select id="clock"><option value="answer">whole answers</option><option value="first">first tokens</option></select></label>
  <span class="small soft"><i class="s0"></i>median&emsp;<i class="s1"></i>95th percentile</span></div>
  <div id="times"></div><div id="latency" class="scroll"></div></section>`;

const parts = () => [
  [() => Promise.all([read("/models?" + new URLSearchParams(consumerOnly())), read("/providers")]), drawModels, ["models"]],
  [askHealth, drawHealth, ["health"]],
  [() => Promise.all([read(spanned("/latency", {resolution: span()[2], group_by: ""})), read(spanned("/latency", {resolution: "total", group_by: "model"}))]), drawLatency, ["latency", "times"]]];

function start() {
  $("clock").onchange = () => choose({clock: $("clock").value});
}

function drawModels([answer, places]) {
  const rate = (target, kind) => target.usd_per_million ? usd(target.usd_per_million[kind] ?? 0) : "unknown";
  const rows = answer.data.flatMap(model => (model.targets.length ? model.targets : [null]).map((target, index) => {
    const known = target && places.data[`${target.provider}/${target.model}`], [word, colour] = target?.unavailable ? [cut(target.unavailable), "bad"] : healthOf(known);
    return [index ? "" : model.targets.length ? pick("model", model.name) : named(model.name), index ? "" : model.strategy, target ? `${cut(target.provider)}/${cut(target.model)}` : "any that fits the pattern",
      target ? el("span", {class: colour}, word, ...(index || !may("operator") ? [] : [" ", link("try " + model.name, "Try", () => { $("play-model").value = model.name; choose({view: "playground"}); }, {"aria-label": "Try " + cut(model.name)})])) : "", known?.failing ? percent(known.failing) : "", seconds(known?.streamed_first_byte_s), seconds(known?.plain_s),
      target ? rate(target, "input") : "", target ? rate(target, "output") : "", target?.context ? short(target.context) : "", index ? "" : count(model.consumers), target ? turn(target) : ""];
  }));
  show("models", note(filters.has("consumer") ? `Names that ${named(filters.get("consumer"))} may use.` : "Names that clients may give. A filter by consumer shows those that it may use.", "soft small"),
    table(["model", "strategy", "target", "now", "failing", "first byte", "plain answer", "input, $/M", "output, $/M", "context", "consumers", ""], rows, [4, 5, 6, 7, 8, 9, 10]));
}

function turn(target) {
  const off = target.unavailable === "it is disabled";
  return may("admin") ? link("turn " + target.name, off ? "Switch on…" : "Switch off…", () => propose(["models", target.name, "disabled"], !off), {"aria-label": `Switch ${cut(target.name)} ${off ? "on" : "off"}`}) : "";
}

// The chosen time where it is short enough for minutes, else the last hour.
const minutes = () => { const [from, to, resolution] = span(), minute = Math.floor(Date.now() / MINUTE) * MINUTE; return resolution === "minute" ? [from, to] : [minute - 59 * MINUTE, minute + MINUTE]; };
function askHealth() {
  const hour = {...between(minutes()), group_by: "provider,target,provider_model"};
  return Promise.all([read("/usage?" + new URLSearchParams({...hour, resolution: "minute"})), read("/latency?" + new URLSearchParams({...hour, resolution: "total"})), read("/providers")]);
}

function drawHealth([usage, latency, places]) {
  const [begin, end] = minutes(), steps = Math.ceil((end - begin) / MINUTE), time = `${utc(begin, 0, 16)} to ${utc(end, 11, 16)} UTC`, nameOf = group => group.provider && `${group.provider} ${group.target} ${group.provider_model}`, times = new Map(latency.data.map(row => [nameOf(row.group), row]));
  const found = [...healthBy(usage, nameOf, begin, MINUTE, steps)].sort(([, a], [, b]) => b.errors - a.errors || b.requests - a.requests).slice(0, 50);
  for (const [, known] of found) markCooled(known, [places.data[`${known.group.provider}/${known.group.provider_model}`], places.data[known.group.provider + "/"]], begin, MINUTE);
  show("health", note(`${time}.`, "soft small"), found.length ? table(["provider", "target", "by minute", "requests", "failed", "tokens a second", "median", "95 %", "first token"], found.map(([name, known]) => [
    pick("provider", known.group.provider), pick("target", known.group.target), strip(known, begin, MINUTE, time), count(known.requests), count(known.errors), short(known.tokens / steps / 60),
    millis(times.get(name)?.p50_ms), millis(times.get(name)?.p95_ms), millis(times.get(name)?.first_p50_ms)]), [3, 4, 5, 6, 7, 8]) : note("No provider was asked in this time."));
}

function drawLatency([over, by]) {
  if (!by.data.some(row => row.answers)) { show("times"); return show("latency", note("No answer in this period.")); }
  timeLines("times", over, state.clock === "first");
  const rows = by.data.filter(row => row.answers).sort((a, b) => b.answers - a.answers).slice(0, 20);
  show("latency", table(["model", "answers", "median", "95 %", "first token, median", "first token, 95 %"],
    rows.map(row => [pick("model", row.group.model), count(row.answers), millis(row.p50_ms), millis(row.p95_ms), millis(row.first_p50_ms), millis(row.first_p95_ms)]), [1, 2, 3, 4, 5]));
}

export const models = {title: "Models", html, parts, start, timed: true, filtered: true};
