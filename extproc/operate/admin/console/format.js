// Numbers, amounts and times as people read them. All times are UTC.
export const HOUR = 3600e3, DAY = 24 * HOUR, MINUTE = 60e3;

export const count = value => Number(value).toLocaleString("en");
export const short = value => Number(value).toLocaleString("en", {notation: "compact", maximumFractionDigits: 1});
export function usd(text) {
  const value = Number(text), size = Math.abs(value), digits = size === 0 || size >= 1 ? 2 : size >= 0.0001 ? 4 : 9;
  return (value < 0 ? "−$" : "$") + size.toLocaleString("en", {minimumFractionDigits: Math.min(digits, 4), maximumFractionDigits: digits});
}
export const amount = (unit, text) => unit === "usd" ? usd(text) : count(text);
export const percent = share => (share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0) + " %";
export const millis = value => value === null || value === undefined ? "–" : value < 1000 ? Math.round(value) + " ms" : (value / 1000).toFixed(value < 10000 ? 2 : 1) + " s";
export const seconds = value => value === undefined ? "–" : millis(value * 1000);

export const utc = (time, from, to) => new Date(time).toISOString().slice(from, to).replace("T", " ");
export const moment = entry => typeof entry.time === "number" ? entry.time * 1000 : Date.parse(entry.time);
export const when = entry => utc(moment(entry), utc(moment(entry), 0, 10) === utc(Date.now(), 0, 10) ? 11 : 5, 19);

// A row of a usage report by the measure that is chosen: cost_usd, tokens or requests.
export const measured = (row, measure) => Number(measure === "tokens" ? row.input_tokens + row.output_tokens : row[measure]);
export const worded = (measure, value) => measure === "cost_usd" ? "$" + Number(value.toPrecision(4)).toLocaleString("en", {minimumFractionDigits: 2, maximumFractionDigits: 9}) : short(value);

// How much a value differs from the one of the period before; empty where there is nothing to compare with.
export function change(now, before) {
  if (!(before > 0)) return "";
  const share = now / before - 1;
  return Math.abs(share) < 0.005 ? "as before" : (share > 0 ? "▲ " : "▼ ") + (share >= 9.995 ? "×" + short(share + 1) : percent(Math.abs(share)));
}
