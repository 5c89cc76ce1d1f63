// Playground: one question to one model, or to two side by side, streamed through the listener with a gateway key.
import {eventsOf, follow, read} from "../api.js";
import {choose} from "../choices.js";
import {$, el, facts, lines, link, show} from "../dom.js";
import {count, millis, usd} from "../format.js";
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
    const places = [$("play-model").value, $("play-other").value].filter(Boolean).map(model => [model, el("div", {class: "block"})]);
    show("played", ...places.map(([, place]) => place));
    try { await Promise.all(places.map(([model, place]) => playOne(model, place))); }
    catch (error) { $("play-error").textContent = error.message; }
    finally { $("play-send").disabled = false; }
  };
}

async function playOne(model, place) {
  const most = Number($("play-most").value), system = $("play-system").value, begun = performance.now(), said = el("pre", {class: "answer", tabindex: "0"}), told = el("p", {}, "asked…");
  const messages = [...(system ? [{role: "system", content: system}] : []), {role: "user", content: $("play-text").value}];
  const body = {model, messages, stream_options: {include_usage: true}, ...(most ? {max_tokens: most} : {})};
  let first = 0, usage = null, problem = "", played = null;
  place.append(el("h3", {}, model), told, said);
  const pieces = eventsOf(data => {  // an event of the model's answer
    let chunk = {};
    try { chunk = JSON.parse(data); } catch { /* [DONE] */ }
    const text = chunk.choices?.[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
    problem = chunk.error?.message ?? problem;
    if (text) { first ||= performance.now() - begun; said.append(lines(text)); }
  });
  await follow("/playground", {method: "POST", body: JSON.stringify({key: $("play-key").value.trim(), body, stream: true})}, event => {
    if (event.piece !== undefined) pieces(event.piece);
    played = event.played ?? played;
    if (event.error) throw new Error(event.error.message);
  });
  if (!played) throw new Error("the answer ended early");
  try { problem = JSON.parse(played.content).error.message; } catch { problem ||= played.content; }
  if (problem) said.append(lines(problem));
  const id = played.headers["x-request-id"], cost = usage?.cost === undefined ? "" : ` · ${usd(usage.cost)}`;
  told.replaceChildren(el("span", {class: played.status < 400 ? "good" : "bad"}, String(played.status)), ` · ${first ? millis(first) + " to the first text, " : ""}${millis(played.ms)}`
    + (usage ? ` · ${count(usage.prompt_tokens ?? 0)} → ${count(usage.completion_tokens ?? 0)} tokens` : "") + cost + (played.cut ? " · cut at 1 MiB " : " "),
  ...(id ? [link("played " + id, "Its request", () => choose({view: "requests", id}))] : []));
  place.append(facts(Object.entries(played.headers)));
}

export const playground = {title: "Playground", role: "operator", html, parts, start, still: () => true};
