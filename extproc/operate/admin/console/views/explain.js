// Explain: the way of a request through the gateway, as `extproc check --explain` prints it.
import {post, read} from "../api.js";
import {$, el, lines, show} from "../dom.js";
import {act, offerModels} from "../page.js";

const html = `
<section aria-labelledby="explain-title"><div class="bar"><h2 id="explain-title">What would happen to a request?</h2></div>
  <form id="explain" class="form"><label for="explain-consumer">Consumer</label><input id="explain-consumer" required maxlength="256" list="explain-consumers" autocomplete="off"><datalist id="explain-consumers"></datalist>
    <label for="explain-model">Model</label><input id="explain-model" required maxlength="256" list="explain-models" autocomplete="off"><datalist id="explain-models"></datalist>
    <label for="explain-labels">Labels</label><input id="explain-labels" autocomplete="off" placeholder="run=7, agent=reviewer" maxlength="1024">
    <label for="explain-body">Body</label><textarea id="explain-body" placeholder="JSON of a request; without it a minimal one"></textarea>
    <span class="wide"><button class="main" id="explain-send">Explain</button> <span class="small soft">Nothing is sent, and nothing is charged. Counts begin at zero.</span></span></form>
  <p id="explain-error" class="bad" role="alert"></p><div id="explained" class="later" role="status"></div></section>`;

const parts = () => [[() => Promise.all([read("/models"), read("/keys").catch(() => ({data: []}))]), drawNames, []]];

function start() {
  $("explain").onsubmit = act("explain-error", async () => {
    $("explain-send").disabled = true;
    try {
      const labels = Object.fromEntries($("explain-labels").value.split(",").map(each => each.split("=").map(part => part.trim())).filter(([name, value]) => name && value !== undefined));
      const text = $("explain-body").value.trim(), body = text ? JSON.parse(text) : null;
      const found = await post("/explain", {model: $("explain-model").value, consumer: $("explain-consumer").value, labels, body});
      show("explained", el("p", {class: found.forwarded ? "good" : "bad"}, found.forwarded ? "It would be forwarded." : "It would be refused."), el("pre", {class: "answer", tabindex: "0"}, lines(found.lines.join("\n"))));
    } finally { $("explain-send").disabled = false; }
  });
}

function drawNames([models, keys]) {
  offerModels("explain-model", "explain-models", models);
  show("explain-consumers", ...[...new Set(keys.data.map(key => key.consumer))].slice(0, 1000).map(name => el("option", {value: name})));
}

export const explain = {title: "Explain", role: "operator", html, parts, start, still: () => true};
