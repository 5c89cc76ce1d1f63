// Elements of the page. Text from the API becomes text nodes only: labels, models and names are the client's word.
const SVG = ["svg", "rect", "line", "text", "title", "g", "path", "circle"];

export const $ = id => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = SVG.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "width%") node.style.width = value + "%";
    else if (name === "left%") node.style.marginLeft = value + "%";
    else node.setAttribute(name, value);
  node.append(...children.map(child => child instanceof Node ? child : String(child)));
  return node;
}

export function show(id, ...nodes) {  // keeps the keyboard's place
  const held = $(id).contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  $(id).replaceChildren(...nodes);
  if (held) [...$(id).querySelectorAll("[data-key]")].find(node => node.dataset.key === held)?.focus();
}

export const note = (text, kind = "soft") => el("p", {class: kind}, text);
export const link = (key, text, onclick, more = {}) => el("button", {class: "link", type: "button", "data-key": key, onclick, ...more}, text);
export const tag = (kind, text, title = "") => el("span", {class: "tag " + kind, ...(title ? {title} : {})}, text);

// Nothing turns the writing around or hides in it.
export const plain = text => text.replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd");
export const lines = text => text.replace(/(?!\n)[\p{Cc}\p{Cf}]/gu, "\ufffd");
export const cut = text => plain(text.length > 200 ? text.slice(0, 200) + "…" : text);
export const named = (value, none = "(none)") => value === null || value === undefined || value === "" ? none : cut(String(value));

// `right`: the columns of numbers.
export function table(heads, rows, right = [], label = "") {
  const cell = (tag, value, index) => {
    const whole = value instanceof Node ? {} : {title: cut(String(value))};
    return el(tag, {...(right.includes(index) ? {class: "n"} : {}), ...(tag === "th" ? {scope: "col"} : whole)}, value);
  };
  return el("table", label ? {"aria-label": label} : {},
    el("thead", {}, el("tr", {}, ...heads.map((head, index) => cell(head === "" ? "td" : "th", head, index)))),
    el("tbody", {}, ...rows.map(row => el("tr", {}, ...row.map((value, index) => cell("td", value, index))))));
}

export const facts = pairs => el("dl", {}, ...pairs.flatMap(([name, value]) =>
  [el("dt", {}, plain(name)), el("dd", {}, value instanceof Node ? value : value === "" || value === null || value === undefined ? "–" : plain(String(value)))]));
