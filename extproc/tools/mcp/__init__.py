"""The MCP gateway: profiles of tools, prompts and resources, which the servers behind them offer.

settings.py, profile_settings.py   `mcp:` of the filter YAML
stages.py     the stages of one request, in order: the table of contents
call.py       one exchange as the stages see it
names.py      the owner of each name           profiles.py  names of a profile, lists by grants
catalogue.py  definitions of a server          own.py       lists of servers that differ by session
servers.py    catalogues and sessions          forward.py   FindServer, ForwardRPC, Returned, ReadAnswer
link.py       requests of the processor        eras.py      requests and answers between revisions
board.py      messages between processes       sessions.py  signed ids of sessions and questions
answers.py    handshakes and lists             refusals.py  refusals as MCP clients take them
policy.py, pins.py, unseen.py, results.py      the operator's policy for tools
approvals.py  calls that wait for a person     discovery.py, search.py  tools that clients search
on_behalf.py, behalf.py   tokens of users for servers with `auth`
pages.py      long results, page by page       changes.py  tools that a profile changes
bound.lua     limit of streamed results, in Envoy

`/mcp/<profile>` has its own list of stages, which `GatewayStream` chooses by the path. The processor answers lists and
handshakes from catalogues, so a server that is away disturbs no other. Calls travel through Envoy, each to one server,
through the same hop as calls to providers: a server takes the form of a provider (`MCPServerSettings.hop`), so
clusters, credentials, timeouts, breakers and access logs share the code.

The design is stateless, as revision 2026-07-28 is; sessions of older revisions are an adapter. A session at a server is
opened at first use, one for each session of a client, or for each consumer whose client has no session. Requests in a
shared session get new ids: if an id is used twice, servers lose answers or give them to another caller.

An answer passes unread (body mode NONE) unless the revisions differ, the server may ask the client, policy has to read
it, or `answers: audit` needs to know whether a tool failed. Streams of the client's own revision outlive the processor.

Clients end their session at any status other than 200, so the refusal of a well-formed, authenticated request is in the
body of a 200. A tool call is repeated only if its connection could not be made or its server did not know the session.
In the latter case the attempt attachment asks the server (`ping`) and writes the id of a new session into the next try.

Policy judges definitions, not lists: a withheld definition is refused with a code of its own. A pin is a person's
decision and overrides detectors. `GuardInput` also guards arguments and results, with a message in place of a request.
A call holds a reservation even without a budget, so its row survives the process.
"""
