// Cache: what kept answers hold, and questions in other words that came near to a kept one.
import {may, read} from "../api.js";
import {cut, facts, named, note, show, table} from "../dom.js";
import {count, short, usd, utc} from "../format.js";

const html = `
<section aria-labelledby="cache-title"><div class="bar"><h2 id="cache-title">Kept answers</h2></div><div id="cache"></div></section>
<section aria-labelledby="similar-title"><div class="bar"><h2 id="similar-title">Questions in other words</h2></div><div id="similar" class="scroll"></div></section>`;

// Without rules in the settings, `/cache` is 404.
const size = () => read("/cache").catch(error => { if (/the cache is off/.test(error.message)) return null; throw error; });
const parts = () => [
  [size, drawSize, ["cache"]],
  [() => may("operator") ? read("/cache/similar") : {data: []}, drawSimilar, ["similar"]]];

function drawSize(found) {
  show("cache", found === null ? note("The cache is off: no rule of `cache` in the settings keeps answers.") : facts([["answers", count(found.entries)], ["bytes", short(found.bytes) + (found.limit ? ` of ${short(found.limit)}` : "")],
    ["requests that wait for an equal one", count(found.waiting)], ["calls that the store did not answer", count(found.failures)], ["questions compared with", count(found.vectors)]]));
}

function drawSimilar(answer) {
  const rows = answer.data.slice(0, 50).map(each => [utc(each.time * 1000, 5, 19), each.score.toFixed(3), each.verdict === "none" ? "no verdict" : each.hit ? "yes" : "no", named(each.consumer), named(each.team), named(each.model),
    cut(each.kept_text ?? each.kept), cut(each.asked_text ?? each.asked), each.saved_usd === null ? "unknown" : usd(each.saved_usd)]);
  show("similar", rows.length ? table(["time, UTC", "score", "same", "consumer", "team", "model", "kept question", "asked", "saves, USD"], rows, [1, 8]) : note("None yet."));
}

export const cache = {title: "Cache", html, parts};
