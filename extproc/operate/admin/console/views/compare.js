// Compare: whether one target can replace another, as `extproc compare` prints it.
import {read} from "../api.js";
import {span} from "../choices.js";
import {$, cut, el, named, note, plain, show, table, tag} from "../dom.js";
import {HOUR, count, usd} from "../format.js";
import {act} from "../page.js";

const MOST_HOURS = 8784;  // as the API allows
const KINDS = {safe: "good", not_safe: "bad", not_enough_data: "soft"};

const html = `
<section aria-labelledby="compare-title"><div class="bar"><h2 id="compare-title">Can one target replace another?</h2></div>
  <form id="compare" class="form"><label for="compare-a">Target A, trusted</label><input id="compare-a" required maxlength="256" list="compare-targets" autocomplete="off">
    <label for="compare-b">Target B</label><input id="compare-b" required maxlength="256" list="compare-targets" autocomplete="off"><datalist id="compare-targets"></datalist>
    <label for="compare-model">Requests for</label><input id="compare-model" maxlength="256" autocomplete="off" placeholder="all models, or one name">
    <label for="compare-label">Label</label><input id="compare-label" maxlength="64" autocomplete="off" placeholder="a class for each value">
    <span class="wide"><button class="main" id="compare-send">Compare</button> <span class="small soft">Over the period above, to now. With the same beginning the bounds hold however often you look.</span></span></form>
  <p id="compare-error" class="bad" role="alert"></p><div id="compared" class="later scroll" role="status"></div></section>`;

const parts = () => [[() => read("/models"), answer => show("compare-targets", ...[...new Set(answer.data.flatMap(model => model.targets.map(target => target.name)))].map(name => el("option", {value: name}))), []]];

function start() {
  $("compare").onsubmit = act("compare-error", async () => {
    const hours = Math.min(MOST_HOURS, Math.max(1, Math.ceil((Date.now() - span()[0]) / HOUR)));
    const more = ["model", "label"].map(name => [name, $("compare-" + name).value.trim()]).filter(([, value]) => value);
    draw(await read("/comparison?" + new URLSearchParams([["a", $("compare-a").value], ["b", $("compare-b").value], ["hours", hours], ...more])));
  });
}

const rate = (bad, of) => `${count(bad)} of ${count(of)}`;
const points = value => (value > 0 ? "+" : "") + (100 * value).toFixed(1) + " %";
const times = value => value === null ? "–" : count(value) + " ms";
const money = value => value === null ? "–" : usd(value);

function draw(found) {
  const measures = found.classes.flatMap(each => each.measures.map(one => [cut(each.name), one.name, rate(one.bad_a, one.of_a), rate(one.bad_b, one.of_b),
    `${points(one.low)} to ${points(one.high)}`, points(one.margin), tag({safe: "ok", worse: "bad"}[one.state] ?? "", one.state), one.more ? count(one.more) : ""]));
  const arms = found.classes.flatMap(each => ["a", "b"].map(arm => [cut(each.name), named(found[arm]), count(each[arm].exchanges),
    times(each[arm].p50_ms), times(each[arm].p95_ms), money(each[arm].p50_usd), money(each[arm].p95_usd), money(each[arm].mean_usd)]));
  show("compared", note(plain(found.sentence), KINDS[found.state]),
    table(["requests", "measure", "A", "B", "difference", "margin", "is", "answers missing"], measures, [2, 3, 4, 5, 7], "Measures"),
    table(["requests", "target", "exchanges", "median", "p95", "median cost", "p95 cost", "mean cost"], arms, [2, 3, 4, 5, 6, 7], "Distributions"));
}

export const compare = {title: "Compare", html, parts, start, timed: true, still: () => true};
