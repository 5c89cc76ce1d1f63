// Charts of the chosen time. Each has a table below it with the same numbers.
import {drill, known, state, steps} from "./choices.js";
import {$, el, named, show} from "./dom.js";
import {measured, millis, utc, worded} from "./format.js";

export const SERIES = 7;  // groups with a colour of their own
const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];
const ticked = (time, resolution) => ({minute: utc(time, 11, 16), hour: utc(time, 11, 16), day: utc(time, 5, 10)})[resolution] ?? utc(time, 0, 7);

function axes(place, height, times, resolution, highest, word, label) {
  const width = Math.max(320, $(place).clientWidth), left = 62, floor = height - 24, step = (width - left) / times.length;
  const power = 10 ** Math.floor(Math.log10(highest || 1)), top = STEPS.map(n => n * power).find(n => n >= highest * 0.999) ?? power * 10;
  const y = value => floor - value / top * (floor - 12), x = index => left + (index + 0.5) * step;
  const svg = el("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label});
  for (const part of [0, 0.25, 0.5, 0.75, 1])
    svg.append(el("line", {x1: left, x2: width, y1: y(top * part), y2: y(top * part)}), el("text", {x: left - 8, y: y(top * part) + 4, "text-anchor": "end"}, word(top * part)));
  const every = Math.ceil(times.length / Math.min(12, Math.floor((width - left) / 44)));
  times.forEach((time, index) => { if (index % every === 0) svg.append(el("text", {x: x(index), y: height - 6, "text-anchor": "middle"}, ticked(time, resolution))); });
  return {svg, x, y, step};
}

// Bars of a usage report by one field, stacked. `slots`: group -> number of its colour.
export function bars(place, report, field, slots) {
  const {times, resolution} = steps();
  const sums = times.map(() => new Map()), raws = new Map();
  for (const row of report.data) {
    const name = named(row.group[field]), series = slots.has(name) ? name : "other", at = times.indexOf(Date.parse(row.start));
    raws.set(name, row.group[field]);
    if (at >= 0) sums[at].set(series, (sums[at].get(series) ?? 0) + measured(row, state.measure));
  }
  const highest = Math.max(...sums.map(bar => [...bar.values()].reduce((a, b) => a + b, 0)));
  const {svg, x, y, step} = axes(place, 210, times, resolution, highest, value => worded(state.measure, value),
    `Usage by ${field}, ${times.length} bars, the highest ${worded(state.measure, highest)}; the table below has the numbers`);
  times.forEach((time, index) => {
    let sum = 0;
    for (const series of [...slots.keys(), "other"].filter(name => sums[index].get(name) > 0)) {
      const value = sums[index].get(series), base = y(sum), raw = raws.get(series), can = slots.has(series) && raw && known(field);
      sum += value;
      const box = {x: x(index) - step * 0.36, width: step * 0.72, y: y(sum), height: Math.max(0.5, base - y(sum))};
      svg.append(el("rect", {...box, class: "s" + (slots.get(series) ?? SERIES) + (can ? " pick" : ""), ...(can ? {onclick: () => drill(field, raw)} : {})},
        el("title", {}, `${ticked(time, resolution)} · ${series}: ${worded(state.measure, value)}`)));
    }
  });
  show(place, svg);
}

// Two lines over a latency report without groups: the median and the 95th percentile.
export function timeLines(place, report, first) {
  const {times, resolution} = steps(), at = new Map(report.data.map(row => [Date.parse(row.start), row]));
  const names = first ? ["first_p50_ms", "first_p95_ms"] : ["p50_ms", "p95_ms"], values = name => times.map(time => at.get(time)?.[name] ?? null);
  const highest = Math.max(0, ...values(names[1]).filter(value => value !== null));
  const {svg, x, y} = axes(place, 210, times, resolution, highest, millis, `Latency of ${first ? "first tokens" : "answers"}, the highest ${millis(highest)}; the table below has the numbers`);
  names.forEach((name, kind) => {
    let path = "", gap = true;
    values(name).forEach((value, index) => { if (value === null) gap = true; else { path += `${gap ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`; gap = false; } });
    svg.append(el("path", {class: "line l" + kind, d: path}));
    values(name).forEach((value, index) => { if (value !== null) svg.append(el("circle", {class: "s" + kind, r: 3, cx: x(index), cy: y(value)},
      el("title", {}, `${utc(times[index], 5, 16)} · ${kind ? "95th percentile" : "median"}: ${millis(value)}`))); });
  });
  show(place, svg);
}
