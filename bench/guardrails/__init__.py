"""Learning the models of guardrails, and measuring detectors on any JSONL."""
