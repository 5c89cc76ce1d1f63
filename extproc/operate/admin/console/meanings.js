// Codes of refusals and failures, in words.
const REASONS = {
  budget_exceeded: "a budget is spent", rate_limited: "a rate limit", model_not_allowed: "no grant for this model", guardrail_blocked: "a guardrail found something",
  model_not_found: "no such model", no_provider_available: "no provider took it", unsupported_by_targets: "no target can serve the request",
  store_unavailable: "the counters do not answer", provider_timeout: "the provider was too slow", overloaded: "too many requests in flight",
  unhealthy: "Envoy leaves out a provider that failed", incomplete: "the answer ended early", client_left: "the client left before the answer",
  connect: "a provider could not be reached", reset: "a provider reset the connection", timeout: "a provider was too slow", internal_error: "a bug of the gateway",
  tool_error: "a tool reported an error", tool_not_found: "no such tool", provider_credential_rejected: "a provider refuses the gateway's key",
  run_looping: "the run goes in circles", invalid_key: "no such key", missing_key: "no key",
};
export const reason = code => Object.hasOwn(REASONS, code) ? REASONS[code] : "";

// The state of models at their providers, from GET /providers: a word and its colour.
export function healthOf(known) {
  if (known?.cooling_down_s) return [`cooling down ${Math.ceil(known.cooling_down_s)} s`, "warn", 2];
  const failing = known?.failing ?? 0;
  return failing >= 0.5 ? ["failing", "bad", 3] : failing >= 0.05 ? ["shaky", "warn", 1] : ["ok", "good", 0];
}
