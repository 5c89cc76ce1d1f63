-- Runs in Envoy, in the internal listener of a provider. Follows a streamed answer that the gateway
-- leaves unread, and writes windows and counts into the metadata that the try's access log carries.
-- Knows bytes and lines, and no API. Its twin in Python, for tests, is tests/unread/watch.py; the
-- names in capitals come from extproc/exchange/unread/__init__.py.

local find, sub, byte = string.find, string.sub, string.byte

-- The number of lines in `text` that begin with `data:`, and where the end of a line stands before
-- the last of them. A line at the very beginning of `text` does not count.
local function lines_in(text)
  local count, last, at = 0, 0, find(text, "\ndata:", 1, true)
  while at do
    count, last, at = count + 1, at, find(text, "\ndata:", at + 6, true)
  end
  if find(text, "\r", 1, true) then
    at = find(text, "\rdata:", 1, true)
    while at do
      count, last, at = count + 1, at > last and at or last, find(text, "\rdata:", at + 6, true)
    end
  end
  return count, last
end

-- The place of the last object called usage, if `text` holds one.
local function usage_in(text)
  local found, at = nil, find(text, '"usage":', 1, true)
  while at do
    local value = at + 8
    if byte(text, value) == 32 then value = value + 1 end
    if byte(text, value) == 123 then found = at end
    at = find(text, '"usage":', value, true)
  end
  return found
end

-- The last `size` bytes of the pieces [first, last].
local function ending(pieces, first, last, size)
  local from, length = last + 1, 0
  while from > first and length < size do
    from = from - 1
    length = length + #pieces[from]
  end
  local text = table.concat(pieces, "", from, last)
  return length > size and sub(text, -size) or text
end

local function is_watched(handle)
  local asked = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  if asked == nil or asked.watch == nil then return false end
  local headers = handle:headers()
  if headers:get(":status") ~= "200" or headers:get("content-encoding") ~= nil then return false end
  local kind = headers:get("content-type")
  return kind ~= nil and sub(string.lower(kind), 1, 17) == "text/event-stream"
end

function envoy_on_response(handle)
  if not is_watched(handle) then return end
  handle:headers():replace(WATCHED, "1")

  local begun = tonumber(handle:timestamp())
  local pieces, first, last, kept = {}, 1, 0, 0 -- the ring: enough pieces for the tail
  local size, lines, count = 0, 0, 0 -- of the answer so far: bytes, lines of data, pieces
  local line_at = 0 -- where the latest line of data begins
  local checked_size, checked_count = 0, 0 -- at the latest checkpoint
  local noted_size, noted_count = 0, 0 -- when the counts were written down
  local head, before = {}, "\n"
  local times = {}
  local missing = 0 -- bytes that the window behind the latest usage still lacks
  local window, window_at

  local function note(...)
    local metadata = handle:streamInfo():dynamicMetadata() -- anew: what was got before a yield is dead
    for index = 1, select("#", ...), 2 do
      local name, value = select(index, ...)
      metadata:set(SEEN, name, value)
    end
  end

  -- The bytes before the latest line of data, and the lines in them: that line may still go on.
  local function note_counts()
    noted_size, noted_count = size, count
    note("count", line_at .. ":" .. (lines > 0 and lines - 1 or 0))
  end

  local function checkpoint()
    local tail = ending(pieces, first, last, TAIL)
    checked_size, checked_count = size, count
    note("tail", handle:base64Escape(tail), "tail_at", size - #tail)
    note_counts()
  end

  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      local piece = chunk:getBytes(0, length)
      count = count + 1

      if count <= TIMES then
        times[count] = size .. ":" .. (tonumber(handle:timestamp()) - begun)
        note("times", table.concat(times, " "))
      end
      if size < HEAD then
        head[#head + 1] = sub(piece, 1, HEAD - size)
        note("head", handle:base64Escape(table.concat(head)))
      end

      last = last + 1
      pieces[last] = length > TAIL and sub(piece, -TAIL) or piece
      kept = kept + #pieces[last]

      -- A line, or a name, may be split between two pieces.
      local joint = sub(before, -9) .. sub(piece, 1, 9)
      local split, split_at = lines_in(sub(before, -5) .. sub(piece, 1, 5))
      local whole, whole_at = lines_in(piece)
      lines = lines + split + whole
      if whole > 0 then
        line_at = size + whole_at - 1
      elseif split > 0 then
        line_at = math.max(0, size - math.min(5, #before) + split_at - 1)
      end
      local at = usage_in(piece)
      if at == nil and usage_in(joint) then at = 1 end
      size = size + length
      before = length >= 9 and sub(piece, -9) or sub(before .. piece, -9)

      if at then
        local from = at > BESIDE and at - BESIDE or 1
        window, window_at = sub(piece, from, at + BESIDE - 1), size - length + from - 1
        missing = BESIDE - (length - at + 1)
        if at <= BESIDE and last > first then
          local earlier = ending(pieces, first, last - 1, BESIDE)
          window, window_at = earlier .. window, window_at - #earlier
        end
        note("usage", handle:base64Escape(window), "usage_at", window_at)
      elseif missing > 0 then
        window = window .. sub(piece, 1, missing)
        missing = missing - length
        note("usage", handle:base64Escape(window))
      end

      -- Not earlier: the window before a usage may begin in a piece that the tail needs no longer.
      while kept - #pieces[first] >= TAIL do
        kept = kept - #pieces[first]
        pieces[first] = nil
        first = first + 1
      end
      local due = count - checked_count >= EVERY or size - checked_size >= TAIL
      if due or count <= TIMES then
        checkpoint()
      elseif count - noted_count >= COUNTS or size - noted_size >= HEAD then
        note_counts()
      end
    end
  end
  if size > checked_size then checkpoint() end
  note("count", size .. ":" .. lines, "ended", true)
end
