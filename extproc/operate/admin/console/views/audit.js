// Audit: the trail of verdicts, refusals and acts of operators.
import {read} from "../api.js";
import {cut, named, note, show, table} from "../dom.js";
import {utc} from "../format.js";

const html = `<section aria-labelledby="audit-title"><div class="bar"><h2 id="audit-title">Audit trail</h2></div><div id="audit" class="scroll"></div></section>`;

const parts = () => [[() => read("/audit"), drawTrail, ["audit"]]];

function drawTrail(answer) {
  const rows = answer.data.filter(({event}) => event.event).map(({number, event}) => [number, utc(event["@timestamp"], 0, 19), named(event.user?.name), event.user?.roles?.[0] || "", event.event.action.replaceAll("-", " "), event.event.outcome,
    cut(JSON.stringify({...(event.rule ? {guardrail: event.rule.name} : {}), ...(event.extproc?.detail || event.extproc)}))]);
  show("audit", rows.length ? table(["number", "time, UTC", "name", "role", "act", "outcome", "facts"], rows, [0]) : note("Nothing happened yet."));
}

export const audit = {title: "Audit", role: "admin", html, parts};
