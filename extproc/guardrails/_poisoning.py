"""Orders that do not belong into the definition of a tool.

Definitions speak to a model by nature ("use this tool to overwrite a file"), so a detector of orders in a user's text
finds many honest ones. What poisoned ones share is told by rules: secrecy towards the user, tags that pretend to be
another speaker, files with credentials, the conversation as an argument, copies to an address, other tools made bad.
Known attacks: https://invariantlabs.ai/blog/mcp-security-notification-tool-poisoning-attacks, OWASP MCP03.
"""

# ruff: noqa: E501  a pattern is one line
from __future__ import annotations

from collections.abc import Sequence

from extproc.guardrails._patterns import compiled

_NOT = r"(?:do not|don't|does not|must not|mustn't|should not|shouldn't|never|without|avoid|not be|nicht|no|ne pas)"
_TELL = r"(?:tell|mention|inform|notif|reveal|disclos|show|alert|ask|say|explain|report|let\W+\w+\W+know|told|erwähn|sag|diga|dis)"
_USER = r"(?:users?|humans?|persons?|people|anyone|anybody|operators?|developers?|benutzer\w*|nutzer\w*|usuario|utilisateur)"
_READ = r"(?:read|open|load|fetch|get|include|pass|send|attach|upload|provide|append|copy|put|lies|lese|lee|lis|lire|übergib|envía|envoie)"
_MOVE = r"(?:pass|send|include|forward|append|attach|copy|upload|put|submit|provide|post|leak|transmit|repeat)\w*"
_WHOLE = r"(?:conversation|chat history|message history|previous messages|system prompt|system message|api keys?|passwords?|credentials|private keys?|environment variables|access tokens?)"
_FILES = r"(?:~?/\.ssh\b|id_rsa|id_ed25519|/etc/(?:passwd|shadow)|\.aws/credentials|\.netrc|\.kube/config|\.env\b|\.npmrc|\.git-credentials|mcp\.json|claude_desktop_config|\.bash_history)"
_RULES = (
    # another speaker, or text that is shown nowhere
    r"(?i)</?\s?(?:important|system|instructions?|secret|hidden|admin|assistant|critical)\s?>|\[(?:system|admin|assistant|important)\]|<!--",
    # secrecy
    rf"(?i)\b{_NOT}\b[^.!?\n]{{0,40}}\b{_TELL}\w*[^.!?\n]{{0,30}}\b{_USER}\b",
    rf"(?i)\b{_USER} (?:must|should|may|need|does|do|can)\s?(?:not|n't|never)\s(?:be |to )?(?:know|see|notice|{_TELL})",
    rf"(?i)\b{_TELL}\w*\s[^.!?\n]{{0,20}}\b{_USER}\b[^.!?\n]{{0,20}}\b(?:nichts|nothing|nada|rien)\b",
    r"(?i)\bkeep (?:this|it|that)\b[^.!?\n]{0,20}\b(?:secret|hidden|private|confidential|between us)\b|\b(?:silently|secretly|covertly)\b[^.!?\n]{0,30}\b(?:send|forward|copy|append|include|upload|pass|call|read|execute|run)",
    # credentials of the machine
    rf"(?i)\b{_READ}\b[^!?\n]{{0,80}}{_FILES}|{_FILES}[^!?\n]{{0,60}}\b(?:{_MOVE}|as|in) (?:the |its |your )?(?:content|value|argument|parameter|param|note|text|context)",
    # the conversation, or keys, as an argument
    rf"(?i)\b{_MOVE}\b[^.!?\n]{{0,40}}\b(?:your|the|all|whole|full|entire|complete|user'?s?|his|their|any)\b[^.!?\n]{{0,30}}\b{_WHOLE}\b[^.!?\n]{{0,60}}\b(?:parameter|argument|field|note|context|debug|every|each|to|as|in|with)\b",
    rf"(?i)\b{_MOVE}\b[^.!?\n]{{0,20}}\b(?:the )?(?:whole|full|entire|complete) (?:\w+ ){{0,2}}(?:conversation|history|prompt|context|list of (?:all )?previous messages)\b",
    # a copy for an address
    r"(?i)\b(?:must|always|also|should|instead|then)\b[^.!?\n]{0,60}\b(?:sent?|forward\w*|upload\w*|b?cc|cop(?:y|ied)|post\w*)\b[^!?\n]{0,60}(?:https?://|[\w.+-]+@[\w-]+\.\w)",
    r"(?i)\bb?cc\b[^.!?\n]{0,30}[\w.+-]+@[\w-]+\.\w|\buploads?\b[^.!?\n]{0,40}\b(?:its|their|the) contents?\b[^!?\n]{0,40}https?://",
    # other tools made bad, consent passed by
    r"(?i)\bother (?:tools?|servers?)\b[^.!?\n]{0,60}\b(?:is|are) (?:insecure|unsafe|broken|malicious|compromised)\b|\b(?:supersedes?|overrides?|replaces?) (?:all )?(?:the )?(?:other )?tools? of (?:all )?other\b|\bbefore (?:using |calling )?any other tool\b",
    r"(?i)\b(?:tool )?\w+ of other servers is (?:insecure|unsafe|broken)\b",
    r"(?i)\b(?:disregard|ignore|bypass|override|skip)\w*\b[^.!?\n]{0,30}\b(?:safety|security|guidelines?|confirmations?|permissions?|approvals?|safeguards?|policies|polic(?:y|ies))\b",
    rf"(?i)\b(?:call|execute|run|invoke|use|send|transfer|delete|pay)\b[^!?\n]{{0,80}}\bwithout (?:asking|confirming|confirmation|approval|consent|permission|telling)\b(?:[^.!?\n]{{0,20}}\b{_USER}\b|\W|$)",
    r"(?i)\bwhen(?:ever)? the user (?:asks|wants|says|mentions)\b[^.!?\n]{0,80}\b(?:instead|with the recipient|also (?:call|send))\b",
    r"(?i)\b(?:you are|you're) now in\b[^.!?\n]{0,30}\bmode\b|\bexecute (?:every|any|all) (?:command|instruction|order)s?\b[^.!?\n]{0,30}\b(?:text|page|document|result|it|them) (?:holds?|contains?|says?)",
)


def poisoned(text: str) -> Sequence[tuple[int, int]]:
    """The spans of orders in a text of a tool's definition."""
    return [span for _, span in compiled(_RULES).search(text)]
