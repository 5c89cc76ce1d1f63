// Runs: what an agent did under one name, with its calls, problems and turns.
import {read} from "../api.js";
import {choose, pick, span, state} from "../choices.js";
import {$, cut, link, named, note, plain, show, table} from "../dom.js";
import {HOUR, count, percent, short, usd, utc, when} from "../format.js";
import {consumerOnly} from "../page.js";

const SUMS = ["requests", "refused", "failed", "input", "cached", "output", "cost"];
const MOST_HOURS = 8784;  // as the API allows

const html = `
<section aria-labelledby="runs-title" id="run-list"><div class="bar"><h2 id="runs-title">Runs of agents, the dearest first</h2></div><div id="runs" class="scroll"></div></section>
<section aria-labelledby="run-title" id="run-one" hidden><div class="bar"><h2 id="run-title">Run</h2><button id="run-back" type="button">Back to the list</button></div><div id="run" class="scroll"></div></section>`;

function parts() {
  if (state.run) {
    const who = state.who ? {consumer: state.who} : {};
    return [[() => Promise.all([read(`/runs/${encodeURIComponent(state.run)}?` + new URLSearchParams(who)), read("/exchanges?" + new URLSearchParams({run: state.run, ...who}))]), drawRun, ["run"]]];
  }
  const hours = Math.min(MOST_HOURS, Math.max(1, Math.ceil((Date.now() - span()[0]) / HOUR)));
  return [[() => read("/runs?" + new URLSearchParams({...consumerOnly(), hours})), drawRuns, ["runs"]]];
}

function start() {
  $("run-back").onclick = () => choose({});
}

function draw() {
  $("run-list").hidden = Boolean(state.run);
  $("run-one").hidden = !state.run;
}

const summed = each => [count(each.requests), count(each.refused), count(each.errors), short(each.input_tokens), percent(each.cache_share), short(each.output_tokens), usd(each.cost_usd)];

function drawRuns(answer) {
  const sorted = [...answer.data].sort((a, b) => b.cost_usd - a.cost_usd);
  const rows = sorted.map(each => [utc(each.latest, 5, 19), link(`run ${each.id} ${each.consumer}`, cut(each.id), () => choose({run: each.id, who: each.consumer})), pick("consumer", each.consumer), named(each.team), ...summed(each)]);
  show("runs", rows.length ? table(["latest, UTC", "run", "consumer", "team", ...SUMS], rows, [4, 5, 6, 7, 8, 9, 10])
    : note("No request of this period names a run: by the label run or session, or a traceparent."));
}

function drawRun([answer, exchanges]) {
  const [found] = answer.data;
  if (!found) return show("run", note("There is no such run."));
  const turns = exchanges.data.toReversed().map(entry => [link("turn " + entry.id, when(entry), () => choose({view: "requests", id: entry.id})), cut(entry.operation ?? ""), cut(entry.tool || entry.model || ""),
    entry.error ? cut(entry.error) : String(entry.status), `${count(entry.input_tokens ?? 0)} → ${count(entry.output_tokens ?? 0)}`, entry.cost_usd === null || entry.cost_usd === undefined ? "" : usd(entry.cost_usd), count(Math.round(entry.duration_ms ?? 0)) + " ms"]);
  $("run-title").textContent = "Run " + cut(found.id);
  show("run", note(`${utc(found.start, 0, 19)} to ${utc(found.latest, 0, 19)} UTC, ${plain(found.consumer)}`),
    table(["operation", "model or tool", "by", ...SUMS], [...found.calls.map(each => [cut(each.operation), cut(each.model || each.provider_model), cut(each.provider || "–"), ...summed(each)]), ["total", "", "", ...summed(found)]], [3, 4, 5, 6, 7, 8, 9]),
    ...(found.problems.length ? [table(["refusal or failure", "outcome", "requests", "latest, UTC"], found.problems.map(each => [cut(each.error), each.outcome, count(each.requests), utc(each.latest, 5, 19)]), [2])] : []),
    ...(turns.length ? [table(["turn, UTC", "operation", "model or tool", "result", "tokens", "cost", "took"], turns, [4, 5, 6], "Turns")] : []));
}

export const runs = {title: "Runs", html, parts, start, draw, timed: true, filtered: true, still: () => Boolean(state.run)};
