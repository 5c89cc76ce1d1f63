// Requests: the latest exchanges, and one exchange as a page with an address of its own.
import {may, post, read} from "../api.js";
import {between, choose, filtered, filters, pick, span, state} from "../choices.js";
import {$, cut, el, facts, lines, link, named, note, plain, show, table, tag} from "../dom.js";
import {amount, count, millis, moment, usd, when} from "../format.js";
import {reason} from "../meanings.js";
import {refresh, traceOf} from "../page.js";

const PAGE = 100, FLYING = 20;
let before = "", oldest = "", chosen = "", latest = null;

const html = `
<section id="flying" aria-labelledby="flying-title" hidden><div class="bar"><h2 id="flying-title">In flight now</h2></div><div id="in-flight" class="scroll"></div></section>
<section id="list" aria-labelledby="exchanges-title"><div class="bar"><h2 id="exchanges-title">Requests</h2>
  <form id="find"><input id="find-id" aria-label="Id of a request" placeholder="id or x-request-id" size="24" maxlength="256" autocomplete="off"> <button>Open</button></form>
  <label>Show <select id="outcome"><option value="">all</option><option value="refused">refused</option><option value="error">failed</option><option value="ok">served</option><option value="findings">with findings</option></select></label>
  <button id="older" type="button">Older</button><button id="newest" type="button" hidden>Newest</button></div><div id="exchanges" class="scroll" tabindex="0" role="region" aria-label="The latest requests"></div></section>
<section id="one" aria-labelledby="one-title" hidden><div class="bar"><h2 id="one-title">Request</h2><button id="copy-id" type="button">Copy the id</button><button id="back" type="button">Back to the list</button></div>
  <div id="exchange" class="scroll"></div></section>`;

function parts() {
  if (state.id) return [[() => Promise.all([read("/exchanges/" + encodeURIComponent(state.id)), read("/budgets").catch(() => ({data: []}))]), drawOne, ["exchange"]]];
  return [[() => read("/in-flight"), answer => drawFlying(answer.data), ["in-flight"]], [() => read(listPath()), drawList, ["exchanges"]]];
}

function start() {
  $("outcome").onchange = () => choose({outcome: $("outcome").value});
  $("older").onclick = () => { before = oldest; refresh(); };
  $("newest").onclick = () => { before = ""; refresh(); };
  $("back").onclick = () => choose({});
  $("copy-id").onclick = () => navigator.clipboard?.writeText(state.id);
  $("find").onsubmit = event => { event.preventDefault(); if ($("find-id").value.trim()) choose({id: $("find-id").value.trim()}); };
}

function draw() {
  const asked = JSON.stringify([state, [...filters]]);
  if (asked !== chosen) [before, chosen] = ["", asked];  // pages are those of one choice
  $("outcome").value = state.outcome;
  $("list").hidden = Boolean(state.id);
  if (state.id) $("flying").hidden = true;
  $("one").hidden = !state.id;
  if (state.id) show("exchange");
}

function listPath() {
  const outcome = state.outcome === "findings" ? {findings: "true"} : state.outcome ? {outcome: state.outcome} : {};
  return filtered("/exchanges", {...between(span()), limit: PAGE, ...(before ? {before} : {}), ...outcome});
}

function live(event) {  // true: an exchange ended since
  drawFlying(event.in_flight);
  const ended = latest !== null && latest !== event.latest;
  latest = event.latest;
  return ended;
}

function drawFlying(flying) {
  const held = each => each.holds.map(hold => `${amount(hold.unit, hold.amount)} of ${cut(hold.scope)}`).join(", ") || "nothing";
  const found = flying.filter(each => ["consumer", "team", "key", "model", "provider"].every(field => !filters.has(field) || filters.get(field) === each[field]));
  $("flying").hidden = !found.length;
  show("in-flight", table(["for", "state", "consumer", "team", "model", "at", "holds"], found.slice(0, FLYING).map(each => [millis(each.seconds * 1000), each.state, pick("consumer", each.consumer), pick("team", each.team),
    pick("model", each.model), each.provider ? pick("provider", each.provider) : "–", held(each)]), [0]), ...(found.length > FLYING ? [note(`${count(found.length - FLYING)} more, all shorter.`, "soft small")] : []));
}

function servedBy(entry) {
  const [provider, model] = entry.mcp_server ? [entry.mcp_server, entry.tool] : [entry.provider, entry.provider_model];
  return provider ? pick("provider", provider, `${cut(provider)}/${cut(model ?? "")}`) : "";
}
const cost = entry => entry.cost_usd === undefined ? "" : entry.cost_usd === null ? "unknown" : usd(entry.cost_usd);
const failed = entry => Boolean(entry.error) || entry.status >= 400;

function drawList(answer) {
  const tokens = entry => !entry.input_tokens && !entry.output_tokens ? "" : `${count(entry.input_tokens)} → ${count(entry.output_tokens)}`;
  const rows = answer.data.map(entry => [
    link("exchange " + entry.id, when(entry), () => choose({view: "requests", id: entry.id}), {"aria-label": "The request at " + when(entry)}),
    el("span", {class: failed(entry) ? "bad" : "good"}, String(entry.status || "–"), ...(entry.tries?.length ? [" ", tag("warn", "+" + entry.tries.length, "tries that failed before")] : []),
      ...(entry.guardrails?.length ? [" ", tag("", "guardrail", plain(entry.guardrails.join("; ")))] : [])), named(entry.error || entry.denied_by, ""),
    pick("consumer", entry.consumer), pick("team", entry.team), pick("model", entry.model), servedBy(entry), tokens(entry), cost(entry), count(Math.round(entry.duration_ms ?? 0)) + " ms"]);
  show("exchanges", rows.length ? table(["time, UTC", "status", "why", "consumer", "team", "model", "served by", "tokens", "cost", "took"], rows, [7, 8, 9])
    : note(before ? "There are none before these." : state.outcome || filters.size ? "No request of this period has these properties." : "No request in this period yet."));
  oldest = answer.data.at(-1)?.id ?? "";
  $("older").hidden = answer.data.length < PAGE;
  $("newest").hidden = !before;
}

// --- one request

const SAID = ["id", "request_id", "time", "event", "operation", "consumer", "team", "key", "labels", "run", "model", "target", "provider", "provider_model", "response_model", "attempts", "tries", "status", "error", "outcome",
  "stream", "complete", "finish_reasons", "duration_ms", "first_token_ms", "skipped", "guardrails", "denied_by", "downgraded", "cache", "warning", "similarity", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens",
  "reasoning_tokens", "usage_source", "cost_usd", "prompt_saved_usd", "prompt_extra_usd", "price_version", "saved_usd", "charges", "levels"];
const block = (title, ...nodes) => el("div", {class: "block"}, el("h3", {}, title), ...nodes);
const some = pairs => facts(pairs.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== 0));

// What stands behind a summary is asked when it is opened, once.
async function fill(place, asked) {
  if (!place.open || place.children.length > 1) return;
  const answer = el("div", {role: "status"});
  place.append(answer);
  try { answer.replaceChildren(...await asked()); } catch (error) { answer.replaceChildren(note(error.message + ".")); }
}

const written = text => el("pre", {class: "answer", tabindex: "0"}, lines(text));

// The stages' decisions about a minimal request like this one, by the settings that are in force now.
async function explained(entry) {
  const found = await post("/explain", {model: entry.model, consumer: entry.consumer, labels: entry.labels ?? {}});
  return [note(`A minimal request of ${named(entry.consumer)} for ${cut(entry.model)} would ${found.forwarded ? "be forwarded" : "be refused"} now. Counts begin at zero.`, "small soft"), written(found.lines.join("\n"))];
}

// Each reading is written into the audit trail.
async function texts(id) {
  const found = await read(`/exchanges/${encodeURIComponent(id)}/texts`);
  return [...(found.cut ? [note("Cut: longer than record.most.")] : []), el("h3", {}, "Request"), written(indented(found.request)),
    el("h3", {}, "Answer"), found.withheld ? note("Left out: a guardrail found something in it.", "warn") : written(indented(found.answer))];
}

function indented(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

function drawOne([entry, budgets]) {
  const why = entry.error ? `${cut(entry.error)}${reason(entry.error) ? ": " + reason(entry.error) : ""}` : entry.outcome === "ok" ? "served" : entry.outcome;
  const labels = Object.entries(entry.labels ?? {}).map(([name, value]) => `${name}: ${value}`).join(", ");
  const rest = Object.entries(entry).filter(([name]) => !SAID.includes(name)).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : value]);
  show("exchange",
    el("p", {class: "headline"}, tag(failed(entry) ? "bad" : "good", String(entry.status || "no answer")), " ", cut(why), ...(entry.denied_by ? [" · by " + cut(entry.denied_by)] : [])),
    el("div", {class: "blocks"},
      block("Who", some([["consumer", pick("consumer", entry.consumer)], ["team", pick("team", entry.team)], ["key", entry.key], ["labels", labels],
        ["run", entry.run ? link("run of it", cut(entry.run), () => choose({view: "runs", run: entry.run, who: entry.consumer})) : ""], [typeof entry.time === "number" ? "ended" : "began", new Date(moment(entry)).toISOString()], ["id", entry.id], ["x-request-id", entry.request_id],
        ["trace", traceOf(entry.id) ? el("a", {href: traceOf(entry.id), rel: "noreferrer noopener", target: "_blank"}, "Open its trace") : ""]])),
      block("What", some([["operation", entry.operation], ["model asked for", entry.model], ["downgraded from", entry.downgraded], ["served by", servedBy(entry)], ["target", entry.target], ["model that answered", entry.response_model],
        ["streamed", entry.stream ? "yes" : ""], ["ended because", entry.finish_reasons?.join(", ")], ["complete", entry.complete === false ? "no" : ""], ["cache", entry.cache], ["similarity", entry.similarity], ["warning", entry.warning]])),
      block("Money", ...(entry.provider || entry.charges ? money(entry) : [note("Nothing was charged.")])),
      ...(entry.guardrails?.length ? [block("Guardrails", el("ul", {}, ...entry.guardrails.map(each => el("li", {}, cut(each)))))] : [])),
    ...counts(entry, budgets.data),
    ...waterfall(entry),
    ...(may("operator") && entry.consumer && entry.model ? [el("details", {id: "decided", ontoggle: event => fill(event.target, () => explained(entry))}, el("summary", {}, "How it is decided"))] : []),
    ...(may("admin") ? [el("details", {id: "texts", ontoggle: event => fill(event.target, () => texts(entry.id))}, el("summary", {}, "Texts"))] : []),
    ...(rest.length ? [el("details", {}, el("summary", {}, "More fields"), facts(rest))] : []));
}

function money(entry) {
  return [some([["cost", cost(entry)], ["price of", entry.price_version], ["input tokens", entry.input_tokens && count(entry.input_tokens)], ["from the provider's cache", entry.cached_tokens && count(entry.cached_tokens)],
    ["written to it", entry.cache_write_tokens && count(entry.cache_write_tokens)], ["output tokens", entry.output_tokens && count(entry.output_tokens)], ["reasoning", entry.reasoning_tokens && count(entry.reasoning_tokens)],
    ["counted by", entry.usage_source], ["saved by a kept answer", Number(entry.saved_usd) ? usd(entry.saved_usd) : ""], ["saved by the prompt cache", Number(entry.prompt_saved_usd) ? usd(entry.prompt_saved_usd) : ""]])];
}

// Each count of a budget before the request and after it; a refused request has only the count without room.
function counts(entry, budgets) {
  const units = new Map(budgets.map(budget => [budget.name, budget.unit])), levels = entry.levels ?? {}, charges = entry.charges ?? {};
  const scopes = Object.keys({...levels, ...charges});
  if (!scopes.length) return [];
  const rows = scopes.map(scope => {
    const {before, asked, limit} = levels[scope] ?? {}, charged = charges[scope];
    const said = value => value === undefined ? "–" : units.get(scope.split(":")[0]) === "usd" ? usd(value / 1e9) : amount("", value);
    return [cut(scope), ...[before, asked, charged, charged === undefined || before === undefined ? undefined : before + charged, limit].map(said)];
  });
  return [el("h3", {}, "Budgets"), el("div", {class: "scroll", id: "counts"}, table(["count", "before", "asked for", "charged", "after", "limit"], rows, [1, 2, 3, 4, 5]))];
}

// Tries one after the other, as bars over the time of the whole exchange.
function waterfall(entry) {
  const tries = (entry.tries ?? []).map(each => ({...each, bad: true})), spent = tries.reduce((sum, each) => sum + each.ms, 0), whole = Math.max(entry.duration_ms ?? 0, spent, 1);
  if (entry.provider) tries.push({target: entry.target, provider: entry.provider, status: entry.status, outcome: entry.outcome === "ok" ? "answered" : entry.outcome, ms: Math.max(0, whole - spent), bad: entry.outcome !== "ok"});
  let begun = 0;
  const rows = tries.map((each, index) => {
    const bar = el("div", {class: "track"}, el("span", {class: each.bad ? "failed" : "fine", "left%": begun / whole * 100, "width%": Math.max(0.5, each.ms / whole * 100)}));
    begun += each.ms;
    return [index + 1, named(each.target, "–"), cut(each.provider), cut(each.outcome), each.status || "–", millis(each.ms), bar];
  });
  const skipped = Object.entries(entry.skipped ?? {}).map(([target, why]) => ["–", cut(target), "", cut(why), "–", "–", ""]);
  if (!rows.length && !skipped.length) return [];
  return [el("h3", {}, "Tries"), el("div", {class: "scroll", id: "tries"}, table(["try", "target", "provider", "outcome", "status", "took", "time"], [...rows, ...skipped], [5])),
    note(`${entry.duration_ms < 10 ? entry.duration_ms + " ms" : millis(entry.duration_ms)} in all${entry.first_token_ms ? `, ${millis(entry.first_token_ms)} to the first token` : ""}.`, "soft small")];
}

export const requests = {title: "Requests", html, parts, start, draw, timed: true, filtered: true, every: 2000, live, still: () => Boolean(before) || Boolean(state.id)};
