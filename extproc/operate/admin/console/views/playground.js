// Playground: one question to one model, or to two side by side, through the listener with a gateway key.
import {post, read} from "../api.js";
import {choose} from "../choices.js";
import {$, el, facts, lines, link, show} from "../dom.js";
import {count, millis} from "../format.js";
import {offerModels} from "../page.js";

const html = `
<section aria-labelledby="play-title"><div class="bar"><h2 id="play-title">Playground</h2></div>
  <form id="play" class="form"><label for="play-key">Gateway key</label><input id="play-key" type="password" required autocomplete="off" maxlength="4096">
    <label for="play-model">Model</label><input id="play-model" required list="play-models" autocomplete="off"><datalist id="play-models"></datalist>
    <label for="play-other">Beside it</label><input id="play-other" list="play-models" autocomplete="off" placeholder="another model, to compare">
    <label for="play-system">Instructions</label><input id="play-system" autocomplete="off">
    <label for="play-text">Text</label><textarea id="play-text" required></textarea>
    <label for="play-most">Most tokens</label><input id="play-most" inputmode="numeric" pattern="[0-9]{0,6}" value="512">
    <span class="wide"><button class="main" id="play-send">Send</button> <span class="small soft">Requests go through the listener and are charged to the key's consumer. Key and text stay in this page.</span></span></form>
  <p id="play-error" class="bad" role="alert"></p><div id="played" class="blocks later" role="status"></div></section>`;

const parts = () => [[() => read("/models"), answer => offerModels("play-model", "play-models", answer), []]];

function start() {
  $("play").onsubmit = async event => {
    event.preventDefault();
    $("play-error").textContent = "";
    $("play-send").disabled = true;
    try { show("played", ...await Promise.all([$("play-model").value, $("play-other").value].filter(Boolean).map(playOne))); }
    catch (error) { $("play-error").textContent = error.message; }
    finally { $("play-send").disabled = false; }
  };
}

async function playOne(model) {
  const most = Number($("play-most").value), system = $("play-system").value;
  const messages = [...(system ? [{role: "system", content: system}] : []), {role: "user", content: $("play-text").value}];
  const played = await post("/playground", {key: $("play-key").value.trim(), body: {model, messages, ...(most ? {max_tokens: most} : {})}});
  let answer = {}, text = played.content;
  try { answer = JSON.parse(played.content); text = answer.choices?.[0]?.message?.content ?? answer.error?.message ?? played.content; } catch { /* no JSON: shown as text */ }
  const id = played.headers["x-request-id"], used = answer.usage ? ` · ${count(answer.usage.prompt_tokens ?? 0)} → ${count(answer.usage.completion_tokens ?? 0)} tokens` : "";
  return el("div", {class: "block"}, el("h3", {}, model), el("p", {}, el("span", {class: played.status < 400 ? "good" : "bad"}, String(played.status)), ` · ${millis(played.ms)}${used} `,
    ...(id ? [link("played " + id, "Its request", () => choose({view: "requests", id}))] : [])),
  el("pre", {class: "answer", tabindex: "0"}, lines(String(text))), facts(Object.entries(played.headers)));
}

export const playground = {title: "Playground", role: "operator", html, parts, start, still: () => true};
