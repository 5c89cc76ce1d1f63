"""The MCP gateway: profiles of tools, prompts and resources, which the servers behind them offer.

settings.py   `mcp:` of the filter YAML
stages.py     the stages of one request, in order: the table of contents
call.py       one exchange as the stages see it
names.py      the owner of each name           profiles.py  names of a profile, lists by grants
catalogue.py  definitions of a server          own.py       lists of servers that differ by session
servers.py    catalogues and sessions          forward.py   FindServer, ForwardRPC, Returned, ReadAnswer
link.py       requests of the processor        eras.py      requests and answers between revisions
board.py      messages between processes       sessions.py  signed ids of sessions and questions
answers.py    handshakes and lists             refusals.py  refusals as MCP clients take them
policy.py, pins.py, unseen.py, results.py      the operator's policy for tools
bound.lua     limit of streamed results, in Envoy

`/mcp/<profile>` has a list of stages of its own, which `GatewayStream` chooses by the path. The processor answers lists
and handshakes from catalogues, so one server that is away disturbs nothing. Calls travel through Envoy, each to one
server, through the hop that providers have: a server takes the form of a provider (`MCPServerSettings.hop`), so
clusters, credentials, timeouts, breakers and access logs are the same code.

The design is stateless, as revision 2026-07-28 is; sessions of older revisions are an adapter. A session at a server is
opened at first use, one for each session of a client, or for each consumer whose client has none. Requests in a shared
session get ids of their own: servers lose answers, or give them to another caller, where an id is used twice.

An answer passes unread (body mode NONE) unless the revisions differ, the client can be asked, policy has to look, or
`answers: audit` needs to know whether a tool failed. Streams of the client's own revision outlive the processor.

Clients end their session at any status other than 200, so the refusal of a well-formed, authenticated request is in the
body of a 200. A call of a tool is repeated only where its connection could not be made or its server did not know the
session: then the attempt attachment asks the server (`ping`) and writes the id of a new session into the next try.

Policy judges definitions, not lists: a withheld definition is refused with a code of its own. A pin is a person's word
and goes before detectors. Guardrails over arguments and results are `GuardInput` again, with a message in the place of
a request. A call holds a reservation even without a budget, so its row survives the process.
"""
