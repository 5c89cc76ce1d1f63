// Budgets: every count, the fullest first, with what is held now, grants, and requests that wait for an answer.
import {may, post, read, remove} from "../api.js";
import {pick} from "../choices.js";
import {$, cut, el, link, note, show, table, tag} from "../dom.js";
import {DAY, HOUR, MINUTE, amount, count, percent, utc} from "../format.js";
import {act, refresh, said} from "../page.js";
import {propose} from "./settings.js";

const LENGTHS = {minute: MINUTE, hour: HOUR, day: DAY, week: 7 * DAY};
const SHOWN = 200;

const html = `
<section aria-labelledby="questions-title" id="waiting" hidden><div class="bar"><h2 id="questions-title">Requests that wait for an answer</h2></div><div id="questions" class="scroll"></div></section>
<section aria-labelledby="budgets-title"><div class="bar"><h2 id="budgets-title">Budgets</h2>
  <span class="small soft"><i class="spent"></i>spent&emsp;<i class="held"></i>held by requests in flight&emsp;<i class="gift"></i>granted beyond the limit</span></div>
  <div id="budgets" class="scroll"></div></section>
<section aria-labelledby="grants-title" id="granted" hidden><div class="bar"><h2 id="grants-title">Grants</h2></div><div id="grants" class="scroll"></div></section>
<dialog id="question" aria-labelledby="question-title"><h2 id="question-title">A request that waits</h2>
  <form method="dialog"><span id="question-text" class="soft"></span><pre id="question-call"></pre>
    <label>Reason, for the client if it is denied <input id="reason" autocomplete="off" maxlength="500"></label>
    <span id="question-error" class="bad" role="alert"></span>
    <div class="bar"><button type="button" id="question-cancel">Cancel</button><button value="deny">Deny</button><button class="main" value="approve">Approve</button></div></form></dialog>
<dialog id="grant" aria-labelledby="grant-title"><h2 id="grant-title">Grant room beyond the limit</h2>
  <form method="dialog"><span id="grant-scope" class="soft"></span>
    <label>Amount, <span id="grant-unit"></span> <input id="amount" inputmode="decimal" autocomplete="off" required pattern="[0-9]{1,18}([.][0-9]{1,9})?"></label>
    <span class="small soft">It counts until the budget's window ends, and is written down. You can revoke it.</span>
    <span id="grant-error" class="bad" role="alert"></span>
    <div class="bar"><button type="button" id="grant-cancel">Cancel</button><button class="main">Grant</button></div></form></dialog>
<dialog id="limit" aria-labelledby="limit-title"><h2 id="limit-title">Another limit</h2>
  <form method="dialog"><label>Limit of <span id="limit-budget"></span>, <span id="limit-unit"></span> <input id="limit-value" inputmode="decimal" autocomplete="off" required pattern="[0-9]{1,18}([.][0-9]{1,9})?"></label>
    <span class="small soft">The settings file has the limit: the next page shows the change and its verdict before anything is written.</span>
    <div class="bar"><button type="button" id="limit-cancel">Cancel</button><button class="main">Show the change</button></div></form></dialog>`;

const parts = () => [[() => Promise.all([read("/budgets"), read("/grants"), read("/questions")]), drawBudgets, ["budgets"]]];

function start() {
  $("grant-cancel").onclick = () => $("grant").close();
  $("question-cancel").onclick = () => $("question").close();
  $("limit-cancel").onclick = () => $("limit").close();
}

const EXAMPLE = "budgets:\n  - {name: team-month, per: [team], unit: usd, limit: 500, window: month}";
const none = () => [note("No budget is set, so nothing is limited. In the settings:"), el("pre", {}, EXAMPLE)];
const limited = ({unit, limit, window}) => unit === "concurrency" ? `${count(limit)} requests at once`
  : `${amount(unit, limit)}${unit === "usd" ? "" : " " + unit.replace("_", " ")} ${window === "total" ? "in all" : "per " + window}`;
const nameOf = scope => Object.entries(scope.fields).map(([field, value]) => `${field.replace("label.", "")} ${value === "" ? "(none)" : value}`).join(", ") || "one count for all";

// Settled amount at the end of the window if it goes on as until now; null too early in a window, and where no window ends.
function forecast(budget, scope) {
  if (!budget.resets_at || !["day", "week", "month"].includes(budget.window)) return null;
  const end = Date.parse(budget.resets_at), last = new Date(end - 1);
  const begin = budget.window === "month" ? Date.UTC(last.getUTCFullYear(), last.getUTCMonth()) : end - LENGTHS[budget.window];
  const passed = (Date.now() - begin) / (end - begin);
  return passed < 0.05 || passed >= 1 ? null : Number(scope.settled) / passed;
}

function stateOf(budget, scope) {
  const limit = Number(budget.limit), spent = limit ? Number(scope.settled) / limit : 1, alert = Math.min(...(budget.alert_at?.length ? budget.alert_at : [0.8]));
  return budget.mode === "shadow" ? ["shadow", "shadow: not enforced", "soft"] : Number(scope.remaining) <= 0 ? ["exhausted", "exhausted", "bad"]
    : spent >= alert ? ["alert", "alert", "warn"] : ["ok", "ok", "good"];
}

function meter(budget, scope, kind) {
  const limit = Number(budget.limit), granted = Number(scope.granted), whole = limit + granted || 1, spent = limit ? Number(scope.settled) / limit : 1;
  const before = Math.min(1, Number(scope.settled) / whole), during = Math.min(1 - before, Number(scope.reserved) / whole), after = Math.min(1 - before - during, granted / whole);
  const part = (kind, share) => el("span", {class: kind, "width%": Math.max(0, Math.min(100, share * 100))});
  return el("div", {class: "meter " + kind, role: "meter", "aria-label": `${budget.name}, ${cut(nameOf(scope))}`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(Math.min(1, spent) * 100)},
    part("spent", before), part("held", during), part("gift", after));
}

const fullest = budgets => budgets.flatMap(budget => budget.scopes.map(scope => ({budget, scope, share: scope.used})))
  .sort((a, b) => (a.budget.mode === "shadow") - (b.budget.mode === "shadow") || b.share - a.share);
const counted = (budget, scope) => `${amount(budget.unit, scope.settled)} spent` + (Number(scope.reserved) ? ` · ${amount(budget.unit, scope.reserved)} held` : "")
  + (Number(scope.granted) ? ` · ${amount(budget.unit, scope.granted)} granted` : "");
function onPace(budget, scope) {
  const expected = forecast(budget, scope), over = expected !== null && expected > Number(budget.limit) + Number(scope.granted);
  return expected === null ? null : el("span", {class: over ? "bad" : ""}, `${amount(budget.unit, budget.unit === "usd" ? expected.toFixed(2) : Math.round(expected))} at this pace`);
}

// The counts that are closest to their limits, and whether all will last.
export function closest(budgets, most) {
  if (!budgets.length) return none();
  const all = fullest(budgets), over = all.filter(({budget, scope}) => budget.mode !== "shadow" && (forecast(budget, scope) ?? 0) > Number(budget.limit) + Number(scope.granted)).length;
  return [note(over ? `${count(over)} of ${count(all.length)} will not last at this pace.` : all.length ? "All last at this pace." : "Nothing was counted yet.", over ? "warn" : "soft"),
    ...all.slice(0, most).map(({budget, scope}) => {
      const [kind, word, colour] = stateOf(budget, scope), pace = onPace(budget, scope);
      return el("div", {class: "scope"}, el("div", {class: "row"}, el("span", {title: cut(nameOf(scope))}, `${budget.name} · ${cut(nameOf(scope))}`), tag(colour, word)), meter(budget, scope, kind),
        el("div", {class: "row small soft"}, el("span", {}, counted(budget, scope)), el("span", {}, `of ${limited(budget)}`), ...(pace ? [pace] : [])));
    })];
}

function drawBudgets([list, grants, questions]) {
  drawQuestions(questions.data);
  drawGrants(grants.data, list.data);
  if (!list.data.length) return show("budgets", ...none());
  const rows = fullest(list.data).slice(0, SHOWN).map(({budget, scope}) => {
    const [kind, word, colour] = stateOf(budget, scope), only = Object.entries(scope.fields), name = cut(nameOf(scope));
    return [budget.name, only.length === 1 ? pick(...only[0], name) : name, tag(colour, word), el("div", {}, meter(budget, scope, kind), el("span", {class: "small soft", title: `${scope.settled} spent, ${scope.reserved} held, ${scope.granted} granted`}, counted(budget, scope))),
      percent(Number(budget.limit) ? Number(scope.settled) / Number(budget.limit) : 1), amount(budget.unit, scope.remaining) + " left", limited(budget), onPace(budget, scope) ?? "–", budget.resets_at ? utc(budget.resets_at, 5, 16) : "–",
      el("span", {}, ...(may("operator") && budget.resets_at ? [link("grant " + scope.scope, "Grant…", () => openGrant(budget, scope), {"aria-label": `Grant room to ${name} of ${budget.name}`}), " "] : []),
        ...(may("admin") ? [link("limit " + scope.scope, "Limit…", () => openLimit(budget), {"aria-label": `Change the limit of ${budget.name}, count ${name}`})] : []))];
  });
  const empty = list.data.filter(budget => !budget.scopes.length);
  show("budgets", ...(rows.length ? [table(["budget", "count", "state", "spent and held", "used", "left", "limit", "forecast", "resets, UTC", ""], rows, [4, 5])] : []),
    ...(empty.length ? [note("Nothing counted yet: " + empty.map(budget => `${budget.name} (${limited(budget)})`).join(", ") + ".", "soft small")] : []),
    ...(rows.length === SHOWN ? [note(`Only the ${SHOWN} fullest are shown.`)] : []));
}

function drawQuestions(found) {
  $("waiting").hidden = !found.length;
  show("questions", table(["asked, UTC", "consumer", "team", "for", "up to", "count or tool", "state", ""], found.map(one => [utc(one.asked_at, 5, 16), one.consumer ? pick("consumer", one.consumer) : "anonymous", one.team ? pick("team", one.team) : "–",
    cut(one.model || one.operation), one.call ? "one call" : amount(one.unit, one.amount), cut(one.call ? `${one.call.server}/${one.call.tool}` : one.scope), one.state + (one.decided_by ? ` by ${cut(one.decided_by)}` : "") + (one.reason ? `: ${cut(one.reason)}` : ""),
    one.state === "open" && may("operator") ? link("decide " + one.id, "Answer…", () => openQuestion(one)) : ""]), [4]));
}

function drawGrants(found, budgets) {
  const units = new Map(budgets.map(budget => [budget.name, budget.unit]));
  $("granted").hidden = !found.length;
  show("grants", table(["budget", "count", "amount", "until, UTC", ""], found.map(grant => [grant.budget, cut(grant.scope), "granted " + amount(units.get(grant.budget), grant.amount), utc(grant.expires_at, 0, 16),
    may("operator") ? link("revoke " + grant.id, "Revoke", () => revoke(grant.id)) : ""])));
}

function openQuestion(one) {
  const who = one.consumer || "anonymous";
  $("question-text").textContent = one.call ? `${who}${one.call.run ? `, run ${cut(one.call.run)}` : ""}: a call of ${one.call.server}/${cut(one.call.tool)}` : `${who}: up to ${amount(one.unit, one.amount)} of ${cut(one.scope)} for ${cut(one.model || one.operation)}`;
  $("question-call").textContent = one.call ? one.call.arguments : "";
  $("question-error").textContent = $("reason").value = "";
  $("question").querySelector("form").onsubmit = act("question-error", async event => {
    await post("/questions/" + encodeURIComponent(one.id), {decision: event.submitter.value, reason: $("reason").value});
    $("question").close();
    refresh();
  });
  $("question").showModal();
}

function openLimit(budget) {
  $("limit-budget").textContent = budget.name;
  $("limit-unit").textContent = budget.unit === "usd" ? "USD" : budget.unit.replace("_", " ");
  $("limit-value").value = budget.limit;
  $("limit").querySelector("form").onsubmit = () => propose(["budgets", budget.name, "limit"], Number($("limit-value").value));
  $("limit").showModal();
}

function openGrant(budget, scope) {
  $("grant-scope").textContent = `${budget.name}: ${cut(nameOf(scope))}`;
  $("grant-unit").textContent = budget.unit === "usd" ? "USD" : budget.unit.replace("_", " ");
  $("grant-error").textContent = $("amount").value = "";
  $("grant").querySelector("form").onsubmit = act("grant-error", async () => {
    await post("/grants", {budget: budget.name, scope: scope.scope, amount: $("amount").value});
    $("grant").close();
    refresh();
  });
  $("grant").showModal();
}

async function revoke(id) {
  try { await remove("/grants/" + encodeURIComponent(id)); refresh(); } catch (error) { said(error); }
}

export const budgets = {title: "Budgets", html, parts, start};
