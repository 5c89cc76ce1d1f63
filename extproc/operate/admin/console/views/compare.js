// Compare: whether one target can replace another, as `extproc compare` prints it.
import {read} from "../api.js";
import {choose, span} from "../choices.js";
import {$, cut, el, link, named, note, plain, show, table, tag} from "../dom.js";
import {HOUR, count, percent, usd} from "../format.js";
import {act} from "../page.js";

const MOST_HOURS = 8784;  // as the API allows
const KINDS = {safe: "good", not_safe: "bad", not_enough_data: "soft"};

const html = `
<section aria-labelledby="compare-title"><div class="bar"><h2 id="compare-title">Can one target replace another?</h2></div>
  <form id="compare" class="form"><label for="compare-what">Compare</label><select id="compare-what"><option value="">two targets</option><option value="shadow">a virtual model and its shadow, in pairs</option><option value="replay">a replay and what it repeats, in pairs</option></select>
    <label for="compare-a" class="two">Target A, trusted</label><input id="compare-a" class="two" required maxlength="256" list="compare-targets" autocomplete="off">
    <label for="compare-b" class="two">Target B</label><input id="compare-b" class="two" required maxlength="256" list="compare-targets" autocomplete="off"><datalist id="compare-targets"></datalist>
    <label for="compare-pairs" class="pairs" hidden>Its name</label><input id="compare-pairs" class="pairs" maxlength="256" autocomplete="off" hidden>
    <label for="compare-model" class="two">Requests for</label><input id="compare-model" class="two" maxlength="256" autocomplete="off" placeholder="all models, or one name">
    <label for="compare-label">Label</label><input id="compare-label" maxlength="64" autocomplete="off" placeholder="a class for each value">
    <span class="wide"><button class="main" id="compare-send">Compare</button> <span class="small soft">Over the period above, to now. With the same beginning the bounds hold however often you look.</span></span></form>
  <p id="compare-error" class="bad" role="alert"></p><div id="compared" class="later scroll" role="status"></div></section>`;

const parts = () => [[() => read("/models"), answer => show("compare-targets", ...[...new Set(answer.data.flatMap(model => model.targets.map(target => target.name)))].map(name => el("option", {value: name}))), []]];

function start() {
  $("compare-what").onchange = () => {
    const paired = Boolean($("compare-what").value);
    for (const [name, hidden] of [["two", paired], ["pairs", !paired]])
      for (const each of document.querySelectorAll("#compare ." + name)) { each.hidden = hidden; if (each.tagName === "INPUT" && each.id !== "compare-model") each.required = !hidden; }
  };
  $("compare").onsubmit = act("compare-error", async () => {
    const hours = Math.min(MOST_HOURS, Math.max(1, Math.ceil((Date.now() - span()[0]) / HOUR)));
    const more = ($("compare-what").value ? ["label"] : ["model", "label"]).map(name => [name, $("compare-" + name).value.trim()]).filter(([, value]) => value);
    const pairs = $("compare-what").value, of = pairs ? [["of", pairs], ["name", $("compare-pairs").value]] : [["a", $("compare-a").value], ["b", $("compare-b").value]];
    draw(await read(`/comparison${pairs ? "/pairs" : ""}?` + new URLSearchParams([...of, ["hours", hours], ...more])));
  });
}

const rate = (bad, of) => `${count(bad)} of ${count(of)}`;
const points = value => (value > 0 ? "+" : "") + (100 * value).toFixed(1) + " %";
const times = value => value === null ? "–" : count(value) + " ms";
const money = value => value === null ? "–" : usd(value);

function draw(found) {
  const measures = found.classes.flatMap(each => each.measures.map(one => [cut(each.name), one.name, rate(one.bad_a, one.of_a), rate(one.bad_b, one.of_b),
    `${points(one.low)} to ${points(one.high)}`, points(one.margin), tag({safe: "ok", worse: "bad"}[one.state] ?? "", one.state), one.more ? count(one.more) : ""]));
  const worse = found.classes[0].measures.filter(one => one.state === "worse" && one.examples.length);
  const calls = found.classes.filter(each => each.calls).map(each => [cut(each.name), count(each.calls.with_tools), percent(each.calls.same_tools / each.calls.with_tools), percent(each.calls.same_calls / each.calls.with_tools)]);
  const arms = found.classes.flatMap(each => ["a", "b"].map(arm => [cut(each.name), named(found[arm]), count(each[arm].exchanges),
    times(each[arm].p50_ms), times(each[arm].p95_ms), money(each[arm].p50_usd), money(each[arm].p95_usd), money(each[arm].mean_usd)]));
  show("compared", note(plain(found.sentence), KINDS[found.state]),
    ...worse.map(one => el("p", {class: "small"}, `${one.name}, the latest of B: `, ...one.examples.flatMap(id => [link("example " + id, cut(id), () => choose({view: "requests", id})), " "]))),
    table(["requests", "measure", "A", "B", "difference", "margin", "is", "answers missing"], measures, [2, 3, 4, 5, 7], "Measures"),
    table(["requests", "target", "exchanges", "median", "p95", "median cost", "p95 cost", "mean cost"], arms, [2, 3, 4, 5, 6, 7], "Distributions"),
    ...(calls.length ? [table(["requests", "pairs with tools", "same tools", "same arguments, too"], calls, [1, 2, 3], "Calls of tools in pairs")] : []));
}

export const compare = {title: "Compare", html, parts, start, timed: true, still: () => true};
