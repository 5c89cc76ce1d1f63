-- Runs in Envoy, in the internal listener of an MCP server. Bounds the events of a streamed answer that the gateway
-- leaves unread: behind one of more than `most` bytes comes the refusal, and nothing else of the answer. Both come in
-- a header of the request, see `contract.BOUND`. The client takes the broken event for noise.

-- The bytes since the latest end of an event in `piece`, of which `size` came before it; nil where an event is too large.
local function size_behind(piece, size, most)
  if size + #piece <= most then
    local ended = string.match(piece, "^.*()\n\r?\n")
    return ended and #piece - ended or size + #piece
  end
  local from, at = 1, string.find(piece, "\n\r?\n")
  while at do
    if size + at - from > most then return nil end
    from, size = at + 1, 0
    at = string.find(piece, "\n\r?\n", from)
  end
  size = size + #piece - from + 1
  return size <= most and size or nil
end

function envoy_on_request(handle)
  local told = handle:headers():get(HEADER)
  if told ~= nil then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "bound", told) end
end

function envoy_on_response(handle)
  local asked = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  local kind = handle:headers():get("content-type")
  if asked == nil or asked.bound == nil or kind == nil then return end
  if string.sub(string.lower(kind), 1, 17) ~= "text/event-stream" then return end

  local most, refusal = string.match(asked.bound, "^(%d+) (.*)$")
  most = tonumber(most)
  local size, tail, refused = 0, "", false -- bytes since the latest end of an event
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if refused then
      if length > 0 then chunk:setBytes("") end
    elseif length > 0 then
      local piece = tail .. chunk:getBytes(0, length)
      size = size_behind(piece, size - #tail, most)
      tail = string.sub(piece, -2)
      if size == nil then
        chunk:setBytes("\n\nevent: message\ndata: " .. refusal .. "\n\n")
        refused = true
      end
    end
  end
end
