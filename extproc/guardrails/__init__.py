"""Guardrails, a file each. A guardrail only finds; the stages decide what follows from a finding.

To add one, copy a file here: its module name is the `kind`, its `SETTINGS` are the keys it takes in the filter YAML.
`build()` makes a `Detector` (finds matches in text), a `Judge` (of complete texts of an answer), a `Measure` (of
requests) or `Withholds` (takes tools out of requests); one class may be several of them. `_base.py` has what each does.

Text reaches `find` as it was written, and once more normalised if that form differs (`_normal.py`: compatible forms,
invisible characters, look-alikes, combining marks), so a detector does not normalise. `role` is the message's role; in
an answer it is `assistant`, or `TOOL_NAME` and `TOOL_CALL` for the name and the arguments of a call. `find` may run on
any thread, for several texts at a time, and keeps no state between calls. An exception counts as a failure of the
guardrail: `failure: closed` refuses, `failure: open` continues.

A guardrail that asks a service has `RemoteSettings`. Its `connect()` makes a `Remote`, or a `Replacer` of tool results,
on the event loop; see `_remote.py`. A `Remote` is asked about whole requests and about windows of answers, in text as
it was written.

    _guard     one guardrail at work               _input    GuardInput: the text of a request
    _watch     the text of one answer              _output   GuardOutput: the events of an answer
    _normal    text without disguises              _mask     replacements, and the way back
    _source    JSON in text, and its edits         _channel  windows of an answer for services
    _threads   long scans                          _schema   JSON Schema with bounded work
    _remote    services that are asked             _base     findings, keys of the YAML
    _arguments arguments of calls, in any form     _screen   regex guardrails, looked at together
    _patterns  many RE2 patterns over one text

If the settings let guardrails read answers, Envoy is asked for every response body at the request's headers. So the
head can wait for the first text, and a block in it sets the status. Without guardrails the same would save 0.1 ms a
request, but Envoy would remove the `content-length` of every answer and send the end of each body as a separate
message, which costs a busy gateway more.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_plain_validator_function

from extproc.guardrails._audits import Audits, AwaitAudits
from extproc.guardrails._base import (
    TOOL_CALL,
    TOOL_NAME,
    AppliesToSettings,
    Detector,
    Excess,
    Finding,
    Guardrail,
    GuardrailSettings,
    Judge,
    Measure,
    Whole,
    Withholds,
)
from extproc.guardrails._guarding import apart, has_guards, has_vault, is_watched
from extproc.guardrails._input import GuardInput
from extproc.guardrails._output import GuardOutput
from extproc.guardrails._remote import Around, RemoteSettings
from extproc.guardrails._results import Results

__all__ = [
    "TOOL_CALL",
    "TOOL_NAME",
    "AppliesToSettings",
    "Around",
    "Audits",
    "AwaitAudits",
    "Detector",
    "Excess",
    "Finding",
    "GuardInput",
    "GuardOutput",
    "Guardrail",
    "GuardrailSettings",
    "Judge",
    "Measure",
    "OneKind",
    "RemoteSettings",
    "Results",
    "Whole",
    "Withholds",
    "apart",
    "has_guards",
    "has_vault",
    "is_watched",
    "kinds",
    "reads_answers",
]


@cache
def kinds() -> Mapping[str, type[GuardrailSettings]]:
    """The settings of every guardrail in this package, by the name of its module."""
    return {name: _settings_of(name) for name in _names()}


@cache
def _names() -> Collection[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def _settings_of(name: str) -> type[GuardrailSettings]:
    settings: type[GuardrailSettings] = importlib.import_module(f"{__name__}.{name}").SETTINGS
    return settings


class OneKind:
    """The type of an entry of `guardrails`: the settings of its kind. Only the kinds in use are imported, because all
    of them take 3 MB.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        return no_info_plain_validator_function(cls._read)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(cls._all().core_schema)

    @classmethod
    def _read(cls, entry: Any) -> GuardrailSettings:
        """The settings of `entry`. Raises pydantic.ValidationError."""
        kind = entry.get("kind") if isinstance(entry, Mapping) else None
        settings: GuardrailSettings = (
            _settings_of(kind).model_validate(entry)
            if isinstance(kind, str) and kind in _names()
            else cls._all().validate_python(entry)
        )
        return settings

    @classmethod
    def _all(cls) -> TypeAdapter[Any]:
        types = tuple(kinds().values())
        either: Any = Annotated[reduce(or_, types), Field(discriminator="kind")] if len(types) > 1 else types[0]
        return TypeAdapter(either)


def reads_answers(guardrails: Sequence[GuardrailSettings]) -> bool:
    """True when the text of some answers has to be read, to check it or to reverse masks."""
    return any({"output", "tool_calls"} & {*one.on} or one.style == "reversible" for one in guardrails)
