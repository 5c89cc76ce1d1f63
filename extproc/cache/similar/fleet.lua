-- A stream of sealed vectors in Redis: the log that every processor reads. KEYS[1] is the stream.
--
-- An entry has four fields: `t`, the bytes of all values up to its own, counted from a number that no earlier stream
-- began with, so that a reader sees what it missed; `x`, the time it ends, in seconds since the epoch; `o`, a digest of
-- its owner; `v`, the sealed value.

local stream, verb = KEYS[1], ARGV[1]
local MOST = 200 -- entries that one call looks at

local function field(entry, at)
    return entry[2][2 * at]
end

-- add, entries, bytes, ends, owner, value: append an entry, then let the first ones leave that have ended or have no
-- room. Returns its id.
local function add()
    local most, bytes, ends = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
    local time = redis.call('TIME')
    local now = tonumber(time[1])
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local total = newest and tonumber(field(newest, 1)) or now * 1000000 + tonumber(time[2])
    total = total + #ARGV[6]
    local id = redis.call('XADD', stream, 'MAXLEN', most, '*', 't', string.format('%.0f', total), 'x', ARGV[4], 'o',
        ARGV[5], 'v', ARGV[6])
    for _ = 1, MOST do
        local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
        local held = total - tonumber(field(first, 1)) + #field(first, 4)
        if first[1] == id or (held <= bytes and tonumber(field(first, 2)) > now) then
            break
        end
        redis.call('XDEL', stream, first[1])
    end
    local left = math.ceil(ends - now) + 60
    if left > redis.call('TTL', stream) then
        redis.call('EXPIRE', stream, left)
    end
    return id
end

-- forget, owner, after, last: delete the owner's entries between the ids `after` and `last`, without these. Returns the id to
-- go on behind; none at the end.
local function forget()
    local found = redis.call('XRANGE', stream, '(' .. ARGV[3], '(' .. ARGV[4], 'COUNT', MOST)
    local owned = {}
    for _, entry in ipairs(found) do
        if field(entry, 3) == ARGV[2] then
            owned[#owned + 1] = entry[1]
        end
    end
    if #owned > 0 then
        redis.call('XDEL', stream, unpack(owned))
    end
    return #found == MOST and found[MOST][1] or false
end

return ({ add = add, forget = forget })[verb]()
