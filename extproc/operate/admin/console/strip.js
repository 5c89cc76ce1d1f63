// Strips of health: one cell for each step of time, coloured by the share of requests that failed in it.
import {el} from "./dom.js";
import {count, utc} from "./format.js";

// The rows of a usage report by the name that `nameOf` finds: {cells, requests, errors} for each; empty names are left out.
export function healthBy(report, nameOf, begin, step, steps) {
  const found = new Map();
  for (const row of report.data) {
    const name = nameOf(row.group), index = Math.round((Date.parse(row.start) - begin) / step);
    if (!name) continue;
    if (!found.has(name)) found.set(name, {cells: Array(steps).fill(null), requests: 0, errors: 0, tokens: 0, group: row.group});
    const known = found.get(name);
    if (index >= 0 && index < steps) known.cells[index] = row;
    known.requests += row.requests; known.errors += row.errors; known.tokens += row.output_tokens;
  }
  return found;
}

// Marks the steps in which others were asked because this one cooled down; `places` are entries of GET /providers.
export function markCooled(known, places, begin, step) {
  for (const [from, to] of places.flatMap(place => place?.cooled ?? []))
    for (let index = Math.max(0, Math.floor((from * 1000 - begin) / step)); index < known.cells.length && begin + index * step < to * 1000; index++)
      known.cells[index] = {requests: 0, errors: 0, ...known.cells[index], cooled: true};
}

// `open` is called with the time of a cell that was clicked; who has no mouse chooses that time as the period.
export function strip(known, begin, step, time, open) {
  const pauses = known.cells.filter(cell => cell?.cooled).length;
  const colour = cell => !cell?.requests ? "none" : cell.errors === 0 ? "fine" : cell.errors / cell.requests < 0.05 ? "some" : "many";
  const told = cell => (cell ? `${count(cell.requests)} requests, ${count(cell.errors)} failed` : "none") + (cell?.cooled ? "; it cooled down, so others were asked" : "");
  return el("span", {class: known.cells.length > 30 ? "strip minutes" : "strip", role: "img", "aria-label": `${known.errors} of ${known.requests} failed in ${time}${pauses ? `; it cooled down in ${pauses} of these parts` : ""}`}, ...known.cells.map((cell, index) =>
    el("span", {class: [colour(cell), ...(cell?.cooled ? ["cooled"] : []), ...(open ? ["opens"] : [])].join(" "), title: `${utc(begin + index * step, 11, 16)}: ${told(cell)}`, ...(open ? {onclick: () => open(begin + index * step)} : {})})));
}
