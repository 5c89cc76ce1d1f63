// My usage: what /v1/usage and /v1/budgets say to the owner of a gateway key. The listener for clients gives this page.
import {$, cut, el, note, show, table} from "./dom.js";
import {DAY, HOUR, amount, count, percent, usd, utc} from "./format.js";

const HEADS = ["requests", "refused", "failed", "input tokens", "output tokens", "cost"];
let round = 0;

class WrongKey extends Error {}

async function read(path) {
  let answer;
  try { answer = await fetch(path, {headers: {authorization: "Bearer " + sessionStorage.getItem("key")}, cache: "no-store"}); }
  catch { throw new Error("the gateway does not answer"); }
  if (answer.ok) return answer.json();
  const message = (await answer.json().catch(() => ({})))?.error?.message ?? "status " + answer.status;
  throw answer.status === 401 ? new WrongKey(message) : new Error(message);
}

function usagePath() {
  const days = Number($("days").value), step = days > 1 ? DAY : HOUR, end = Math.floor(Date.now() / step) * step + step;
  const time = moment => new Date(moment).toISOString().slice(0, 19) + "Z";
  return "/v1/usage?" + new URLSearchParams({start: time(end - days * DAY), end: time(end), group_by: "model", resolution: days > 1 ? "day" : "hour"});
}

async function refresh() {
  const mine = ++round;
  $("error").textContent = "";
  try {
    const [usage, budgets] = await Promise.all([read(usagePath()), read("/v1/budgets")]);
    if (mine !== round) return;
    opened(true);
    drawUsage(usage);
    drawBudgets(budgets.data);
    $("state").textContent = "as of " + utc(Date.now(), 11, 19) + " UTC";
  } catch (error) {
    if (mine !== round) return;
    if (error instanceof WrongKey) leave();
    $("shown").hidden ? $("error").textContent = error.message : $("state").textContent = error.message;
  }
}

function opened(yes) {
  $("asking").hidden = yes;
  for (const id of ["shown", "days-chosen", "again", "leave"]) $(id).hidden = !yes;
}

function leave() {
  round++;  // late answers are not drawn
  sessionStorage.removeItem("key");
  for (const id of ["budgets", "models", "times"]) show(id);
  $("state").textContent = "";
  opened(false);
}

function drawUsage({data, total, truncated}) {
  if (!total.requests) return ["models", "times"].forEach(id => show(id, note("No request in this period.")));
  const by = name => {  // the rows of one model or time, added up
    const sums = new Map();
    for (const row of data) {
      const key = name === "model" ? row.group.model : row.start, sum = sums.get(key) ?? {cost: 0, tokens: [0, 0], counts: [0, 0, 0]};
      sum.cost += Number(row.cost_usd);
      sum.tokens = [sum.tokens[0] + row.input_tokens, sum.tokens[1] + row.output_tokens];
      sum.counts = sum.counts.map((value, index) => value + row[["requests", "refused", "errors"][index]]);
      sums.set(key, sum);
    }
    return [...sums];
  };
  const cells = sum => [...sum.counts.map(count), ...sum.tokens.map(count), usd(sum.cost)];
  const all = ["all", ...["requests", "refused", "errors", "input_tokens", "output_tokens"].map(name => count(total[name])), usd(total.cost_usd)];
  const models = by("model").sort(([, a], [, b]) => b.cost - a.cost), hourly = $("days").value === "1";
  show("models", table(["model", ...HEADS], [...models.map(([name, sum]) => [cut(name || "(none)"), ...cells(sum)]), all], [1, 2, 3, 4, 5, 6]),
    ...(total.unpriced ? [note(`${count(total.unpriced)} requests have no known price.`, "soft small")] : []), ...(truncated ? [note("There is more than is shown: choose a shorter period.", "warn small")] : []));
  show("times", table([hourly ? "hour, UTC" : "day, UTC", ...HEADS], by("time").reverse().map(([start, sum]) => [utc(start, 0, hourly ? 16 : 10), ...cells(sum)]), [1, 2, 3, 4, 5, 6]));
}

function drawBudgets(budgets) {
  const unused = budget => [{fields: {}, used: Number(budget.limit) ? 0 : 1, settled: "0", reserved: "0", remaining: budget.limit}];
  const rows = budgets.flatMap(budget => (budget.scopes.length ? budget.scopes : unused(budget)).map(scope => {
    const share = Math.min(1, scope.used), bar = el("div", {class: "meter" + (share >= 1 ? " exhausted" : share >= 0.8 ? " alert" : "")}, el("span", {class: "spent", "width%": share * 100}));
    return [scope.used, [cut(budget.name), Object.values(scope.fields).map(cut).join(", ") || "all", bar, percent(scope.used), amount(budget.unit, scope.settled), amount(budget.unit, scope.reserved), amount(budget.unit, scope.remaining),
      budget.unit === "usd" ? "USD" : budget.unit.replace("_", " "), budget.resets_at ? utc(budget.resets_at, 0, 16) : "–"]];
  })).sort(([a], [b]) => b - a).map(([, row]) => row);
  show("budgets", rows.length ? table(["budget", "of", "share", "used", "spent", "held now", "left", "unit", "begins anew, UTC"], rows, [3, 4, 5, 6]) : note("No budget limits your requests."));
}

$("open").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  refresh();
};
$("again").onclick = refresh;
$("days").onchange = refresh;
$("leave").onclick = leave;
if (sessionStorage.getItem("key")) refresh();
