// The admin API, and the token or sign-on that it may ask for.
import {$} from "./dom.js";

let signedIn = () => {};
export let me = null;
const ROLES = ["viewer", "operator", "admin"];
export const may = role => !me || ROLES.indexOf(me.role) >= ROLES.indexOf(role);

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token"), headers = token ? {authorization: "Bearer " + token} : {};
  if (options.method) headers["content-type"] = "application/json";
  let answer;
  try { answer = await fetch(path, {...options, headers, cache: "no-store"}); }
  catch { throw new Error("the gateway does not answer"); }
  if (answer.status === 401) {
    const code = (await answer.json().catch(() => ({})))?.error?.code;
    // A late answer to an earlier token says nothing about the one that was entered since.
    if (token === sessionStorage.getItem("token")) login(token ? "This is not the token." : "", code === "sign_in_required");
    throw new Error("the token is missing");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({})))?.error?.message ?? "status " + answer.status);
  return answer;
}
export const read = async path => (await ask(path)).json();
// Server-sent events, until they end or the request's signal ends them. An EventSource could not send the token.
export async function follow(path, options, seen) {
  const answer = await ask(path, options), reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(), feed = eventsOf(data => seen(JSON.parse(data)));
  try { for (let part = await reader.read(); !part.done; part = await reader.read()) feed(part.value); }
  finally { reader.cancel().catch(() => {}); }
}
// A function that takes text as it arrives, and gives the data of each whole event to `seen`.
export function eventsOf(seen) {
  let rest = "";
  return text => {
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) seen(event.slice(6));
  };
}
export const post = async (path, body) => (await ask(path, {method: "POST", body: JSON.stringify(body)})).json();
export const remove = path => ask(path, {method: "DELETE"});

export async function whoami() {
  try { me = await read("/me"); } catch { return; }
  $("me").textContent = me.name === "local" || me.name === "token" ? "" : `${me.name.slice(0, 200)} (${me.role})`;
  $("sign-out").hidden = !me.session;
}

function login(why, signOn) {
  $("sign-on").hidden = !signOn;
  if (signOn) $("login-title").textContent = "Sign in to this gateway";
  $("login-error").textContent = why;
  if (!$("login").open) { $("token").value = ""; $("login").showModal(); }
}

export function startLogin(called) {
  signedIn = called;
  // Before the dialog closes: an answer without a token that comes meanwhile would open it again, empty.
  $("login").querySelector("form").addEventListener("submit", () => sessionStorage.setItem("token", $("token").value.trim()));
  $("login").addEventListener("close", () => whoami().then(signedIn));
  $("login").addEventListener("cancel", event => event.preventDefault());
  $("sign-in").onclick = () => { location.href = "/auth/login?" + new URLSearchParams({next: location.hash.slice(1)}); };
  $("sign-out").onclick = async () => { try { await ask("/auth/logout", {method: "POST", body: "{}"}); } finally { location.reload(); } };
}
