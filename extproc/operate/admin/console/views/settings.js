// Settings: the file, and a change of it with its difference and the verdict of `extproc check`; written where that is allowed.
import {post, read} from "../api.js";
import {choose} from "../choices.js";
import {$, el, lines, note, show} from "../dom.js";
import {act} from "../page.js";

let file = null, edits = [];

const html = `
<section aria-labelledby="settings-title"><div class="bar"><h2 id="settings-title">Settings</h2><span id="settings-file" class="small soft"></span></div>
  <form id="settings"><p id="settings-large" class="soft" hidden>The file is too large to be edited here. Single values can be changed from the views Budgets, Models and Keys.</p>
    <label for="settings-text" class="small soft">The file, and your change of it</label><textarea id="settings-text" class="code" spellcheck="false" autocomplete="off" rows="24"></textarea>
    <p class="bar"><span class="small soft" id="settings-how"></span><button type="button" id="settings-again">Read it again</button><button class="main" id="settings-check">Check the change</button></p></form>
  <p id="settings-error" class="bad" role="alert"></p></section>
<section aria-labelledby="change-title" id="change" hidden><div class="bar"><h2 id="change-title">The change</h2><button type="button" id="settings-copy">Copy the file</button><button type="button" class="main" id="settings-apply">Write it</button></div>
  <div id="settings-verdict" role="status"></div></section>
<section aria-labelledby="asking-title"><div class="bar"><h2 id="asking-title">Do the providers answer?</h2><button type="button" id="ask-providers">Ask each of them</button></div>
  <p class="small soft">One small request to each provider, with its own key, through an Envoy of its own. Budgets and the ledger do not count it; the providers do.</p>
  <p id="asking-error" class="bad" role="alert"></p><div id="asked" role="status"></div></section>`;

const parts = () => file ? [] : [[() => read("/settings"), drawFile, ["settings-verdict"]]];

// A change of one value, proposed by another view. In a list a name stands for the entry of that name.
export function propose(path, value) {
  file = null;
  edits = [{path, value}];
  choose({view: "settings"});
}

function start() {
  $("settings").onsubmit = act("settings-error", () => change(false));
  $("settings-apply").onclick = act("settings-error", () => change(true));
  $("settings-again").onclick = act("settings-error", async () => { edits = []; drawFile(await read("/settings")); });
  $("settings-copy").onclick = () => navigator.clipboard?.writeText($("settings-text").value);
  $("ask-providers").onclick = act("asking-error", async () => {
    $("ask-providers").disabled = true;
    show("asked", note("Asking…"));
    try {
      const found = await post("/providers/check", {});
      show("asked", el("p", {class: found.well ? "good" : "bad"}, found.well ? "All answer well." : "Not all answer well."), el("pre", {class: "answer", tabindex: "0"}, lines(found.lines.join("\n"))));
    } catch (error) { show("asked"); throw error; } finally { $("ask-providers").disabled = false; }
  });
}

function drawFile(answer) {
  file = answer;
  $("settings-file").textContent = file.file;
  $("settings-text").value = file.text;
  $("settings-large").hidden = Boolean(file.text);
  $("settings-text").disabled = !file.text;
  $("settings-how").textContent = file.may_apply ? "" : "The gateway does not write the file (admin.apply_settings): copy the change to where the file is made.";
  $("change").hidden = true;
  if (edits.length) act("settings-error", () => change(false))();
}

async function change(apply) {
  for (const id of ["settings-check", "settings-apply"]) $(id).disabled = true;
  try {
    const own = edits.length || !file.text ? {edits} : {text: $("settings-text").value};
    const found = await post("/settings", {digest: file.digest, apply, ...own});
    if (found.text) $("settings-text").value = found.text;
    if (found.text || found.applied) edits = [];
    file = {...file, text: found.text, digest: found.digest};
    drawVerdict(found);
  } finally { for (const id of ["settings-check", "settings-apply"]) $(id).disabled = false; }
}

function drawVerdict(found) {
  const said = found.applied ? "Written. The gateway takes it within seconds." : found.loads ? "These settings load." : "These settings do not load.";
  $("change").hidden = false;
  $("settings-apply").hidden = !file.may_apply || !found.loads || found.applied || !found.difference;
  show("settings-verdict", el("p", {class: found.loads ? "good" : "bad"}, said), el("pre", {class: "answer", tabindex: "0"}, lines(found.lines.join("\n"))),
    found.difference ? el("pre", {class: "answer", tabindex: "0", "aria-label": "Difference"}, ...found.difference.split("\n").map(line =>
      el("span", {class: line.startsWith("+") ? "good" : line.startsWith("-") ? "bad" : "soft"}, lines(line) + "\n"))) : note("Nothing differs from the file."));
}

export const settings = {title: "Settings", role: "admin", html, parts, start, still: () => Boolean(file)};
