// Keys: who has which, when it was used, what it spent; make and revoke.
import {may, post, read, remove} from "../api.js";
import {between, choose, filters, pick} from "../choices.js";
import {$, cut, el, link, named, note, plain, show, table} from "../dom.js";
import {DAY, HOUR, count, usd, utc} from "../format.js";
import {act, refresh} from "../page.js";
import {propose} from "./settings.js";

const SHOWN = 500, DAYS = 30;
const COLOURS = {active: "good", expired: "warn", revoked: "soft", disabled: "bad"};
let listed = null;

const html = `
<section aria-labelledby="keys-title"><div class="bar"><h2 id="keys-title">Gateway keys</h2>
  <label>Search <input id="key-find" type="search" autocomplete="off" placeholder="consumer, name or end" maxlength="256"></label></div>
  <div id="keys" class="scroll"></div></section>
<section aria-labelledby="new-title" id="making"><div class="bar"><h2 id="new-title">A new key</h2></div>
  <form id="new-key" class="form"><label for="key-consumer">Consumer</label><input id="key-consumer" required maxlength="256" autocomplete="off">
    <label for="key-name">Name</label><input id="key-name" required pattern="[A-Za-z0-9][A-Za-z0-9._\\-]{0,62}" autocomplete="off" placeholder="laptop">
    <label for="key-expires">Expires</label><select id="key-expires"><option value="3600">in an hour</option><option value="86400">in a day</option><option value="2592000">in 30 days</option>
      <option value="7776000" selected>in 90 days</option><option value="31536000">in a year</option><option value="">never</option></select>
    <span class="wide"><button class="main">Make a key</button></span></form></section>
<p id="key-error" class="bad whole" role="alert"></p>
<dialog id="made" aria-labelledby="made-title"><h2 id="made-title">The new key</h2>
  <p>Copy it now: the gateway keeps only its hash and its end.</p><p id="made-key" class="secret"></p>
  <form method="dialog" class="bar"><button type="button" id="made-copy">Copy</button><button type="button" id="made-try">Try it</button><button class="main">Close</button></form></dialog>`;

function parts() {
  const now = Math.floor(Date.now() / HOUR) * HOUR + HOUR, spent = days => read("/usage?" + new URLSearchParams({...between([now - days * DAY, now]), group_by: "key", resolution: "total"})).catch(() => ({data: []}));
  return [[() => Promise.all([read("/keys"), spent(1), spent(DAYS)]), answer => { listed = answer; drawKeys(); }, ["keys"]]];
}

function start() {
  $("key-find").oninput = () => { if (listed) drawKeys(); };
  $("new-key").onsubmit = act("key-error", async () => {
    const seconds = $("key-expires").value;
    await make($("key-consumer").value, $("key-name").value, seconds ? Number(seconds) : null);
    $("key-name").value = "";
  });
  $("made").addEventListener("close", () => { $("made-key").textContent = ""; });
  $("made-copy").onclick = () => navigator.clipboard?.writeText($("made-key").textContent);
  $("made-try").onclick = () => { $("play-key").value = $("made-key").textContent; $("made").close(); choose({view: "playground"}); };
}

function draw() {
  $("making").hidden = !may("operator");
}

function drawKeys() {
  const [answer, day, month] = listed, by = report => new Map(report.data.map(row => [row.group.key, row])), [today, lately] = [by(day), by(month)];
  const rank = key => key.id ? key.state === "active" ? 0 : 2 : 1;  // first those that can be revoked
  const wanted = $("key-find").value.trim().toLowerCase(), time = value => value ? utc(value, 0, 16) : "–";
  const found = answer.data.filter(key => (!filters.has("consumer") || key.consumer === filters.get("consumer")) && (`${key.consumer}#${key.name}`.toLowerCase().includes(wanted) || key.ending && wanted.endsWith(key.ending.toLowerCase()))).sort((a, b) => rank(a) - rank(b));
  const rows = found.slice(0, SHOWN).map(key => {
    const name = `${key.consumer}#${key.name}`, used = today.get(name) ? "in the last day" : lately.get(name) ? `in the last ${DAYS} days` : `not in ${DAYS} days`;
    return [pick("consumer", key.consumer), pick("key", name, cut(key.name)), key.ending ? "…" + key.ending : "–", el("span", {class: COLOURS[key.state]}, key.state), used, usd(lately.get(name)?.cost_usd ?? 0), count(lately.get(name)?.requests ?? 0),
      key.origin, time(key.created), named(key.created_by, "–"), key.expires_at ? time(key.expires_at) : "never",
      key.id && key.state === "active" && may("operator") ? el("span", {}, link("rotate " + key.id, "Rotate", () => rotate(key), {"aria-label": `Rotate the key ${cut(key.name)} of ${cut(key.consumer)}`}), " ",
        link("key " + key.id, "Revoke", () => revoke(key), {"aria-label": `Revoke the key ${cut(key.name)} of ${cut(key.consumer)}`})) : !key.id && key.state === "active" && may("admin") ? link("off " + name, "Disable…", () => propose(["consumers", key.consumer, "keys", /^\d+$/.test(key.name) ? Number(key.name) : key.name, "disabled"], true), {"aria-label": `Disable the key ${cut(key.name)} of ${cut(key.consumer)}`}) : ""];
  });
  show("keys", rows.length ? table(["consumer", "name", "ends with", "state", "used", `spend, ${DAYS} days`, "requests", "made in", "made, UTC", "by", "expires, UTC", ""], rows, [5, 6]) : note(wanted ? "No key has this in its name." : "No key yet."),
    ...(found.length > SHOWN ? [note(`Only ${SHOWN} of ${count(found.length)} keys are shown: search, or filter by consumer.`)] : []));
}

async function make(consumer, name, expires_in) {
  const made = await post("/keys", {consumer, name, expires_in});
  $("made-key").textContent = made.key;
  $("made").showModal();
  refresh();
}

// A second key of the consumer that lasts as long as the first; the first works until it is revoked.
const rotate = key => act("key-error", async () => {
  const [, name, number] = /^(.*?)(?:-(\d{1,4}))?$/.exec(key.name), lasts = key.expires_at ? Math.max(60, (Date.parse(key.expires_at) - Date.parse(key.created)) / 1000) : null;
  await make(key.consumer, `${name.slice(0, 57)}-${Number(number ?? 1) + 1}`, lasts);
})();

async function revoke(key) {
  if (!confirm(`Revoke the key ${plain(key.name)} of ${plain(key.consumer)}? Requests with it get 401 within seconds.`)) return;
  await act("key-error", async () => { await remove("/keys/" + encodeURIComponent(key.id)); refresh(); })();
}

export const keys = {title: "Keys", html, parts, start, draw, filtered: true};
