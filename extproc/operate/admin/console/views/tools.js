// Tools of MCP servers: what is offered, who calls it, and what is refused.
import {read} from "../api.js";
import {pick, spanned, usagePath} from "../choices.js";
import {cut, el, named, note, show, table} from "../dom.js";
import {count, millis, usd} from "../format.js";

const CALLS = {resolution: "total", group_by: "provider,provider_model", operation: "tools/call"};
const COLOURS = {listed: "good", changed: "warn", withheld: "bad", disabled: "soft"};
const SHOWN = 500;

const html = `<section aria-labelledby="tools-title"><div class="bar"><h2 id="tools-title">Tools of MCP servers</h2></div><div id="tools" class="scroll"></div></section>`;

// Without servers in the settings, `/tools` is 404.
const servers = () => read("/tools").catch(error => { if (/no MCP servers/.test(error.message)) return null; throw error; });
const parts = () => [[() => Promise.all([servers(), ...["error", "consumer"].map(by => read(usagePath({...CALLS, group_by: CALLS.group_by + "," + by}))), read(spanned("/latency", CALLS))]), drawTools, ["tools"]]];

function rowsOf(servers, byError, byConsumer, times) {
  const rows = new Map();
  const row = ({provider, provider_model}) => {
    const key = provider + "/" + provider_model;
    if (!rows.has(key)) rows.set(key, {server: provider, tool: provider_model, state: "", calls: 0, errors: 0, refused: 0, cost: 0, why: [], who: [], time: null});
    return rows.get(key);
  };
  for (const server of servers) for (const tool of server.tools) row({provider: server.name, provider_model: tool.name}).state = tool.state;
  for (const each of byError) {
    const found = row(each.group);
    found.calls += each.requests; found.refused += each.refused; found.cost += Number(each.cost_usd);
    if (each.group.error) found.why.push(`${each.group.error} ${count(each.requests)}`);
    if (each.group.error && !each.refused) found.errors += each.requests;
  }
  for (const each of byConsumer) row(each.group).who.push(each.group.consumer);
  for (const each of times) row(each.group).time = each;
  return [...rows.values()].sort((a, b) => b.calls - a.calls || (a.server + a.tool < b.server + b.tool ? -1 : 1)).slice(0, SHOWN);
}

function drawTools([servers, byError, byConsumer, times]) {
  if (servers === null) return show("tools", note("No MCP server is set up, so agents get no tools here. In the settings:"),
    el("pre", {}, "mcp:\n  servers:\n    github: {url: https://api.githubcopilot.com/mcp/, auth: {token: env:GITHUB_TOKEN}}"));
  const ill = servers.data.filter(server => server.error || server.read_at === null), sorted = rowsOf(servers.data, byError.data, byConsumer.data, times.data);
  const few = names => names.length > 3 ? `${names.slice(0, 3).map(name => named(name)).join(", ")} and ${names.length - 3} more` : names.map(name => named(name)).join(", ");
  show("tools", ...ill.map(server => note(`${named(server.name)}: ${server.error ? cut(server.error) : "its tools were not read yet"}.`, "warn")),
    sorted.length ? table(["server", "tool", "state", "calls", "failed", "refused", "median", "95th percentile", "USD", "who", "refusals and errors"],
      sorted.map(each => [pick("provider", each.server), named(each.tool), el("span", {class: COLOURS[each.state] ?? "soft"}, each.state || "not offered"), count(each.calls), count(each.errors), count(each.refused),
        millis(each.time?.p50_ms), millis(each.time?.p95_ms), usd(each.cost), few(each.who), few(each.why)]), [3, 4, 5, 6, 7, 8])
    : note("The servers offer no tools."));
}

export const tools = {title: "Tools", html, parts, timed: true};
