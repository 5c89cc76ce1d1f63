-- Every phase of the counters, one call each: see counters.py, which sends it, and extproc/stores/__init__.py for what it
-- promises. All keys have the hash tag of KEYS[1], so they are on one node of a cluster.
--
-- KEYS[1] the hash tag with its braces · ARGV[1] the phase · ARGV[2] the time, or '' for this server's clock · the rest
-- as the phase wants it. Nothing is written before all that can refuse has been asked.
--
--   TAG:counts:WINDOW:NUMBER   hash   scope -> 'settled reserved', without those that are all zero; ends by its TTL
--   TAG:reservations           hash   id -> state, then its holds packed: window, number, scope, amount, slot, ...
--   TAG:leases                 zset   id by the end of its lease; states 0 (reserved) and 1 (forwarded)
--   TAG:late                   zset   id by when it was ended; states 2 (was released) and 3 (was charged)
--   TAG:board:BOARD            hash   author -> note
--   TAG:notes                  zset   {board, author} packed, by when the note runs out
--   TAG:epoch                  string written once: another one means that everything before it is lost

local tag, phase, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local RESERVATIONS, LEASES, LATE = tag .. ':reservations', tag .. ':leases', tag .. ':late'
local NOTES, EPOCH = tag .. ':notes', tag .. ':epoch'
local MONDAY = 4 * 86400
local KEPT = 3600 -- seconds that the counts of an ended window stay at least, for what is still held there
local PURGE = 1000 -- what is forgotten by one call, at most
local MAX = '9223372036854775807'

-- Integers to 2^63-1. Lua has only doubles, exact to 2^53, so a number is two of them: hi * BASE + lo.

local BASE = 1e10

local function parse(text)
  if #text <= 10 then
    return 0, tonumber(text)
  end
  return tonumber(text:sub(1, -11)), tonumber(text:sub(-10))
end

local function show(hi, lo)
  if hi == 0 then
    return string.format('%d', lo)
  end
  return string.format('%d%010d', hi, lo)
end

local function add(hi, lo, more_hi, more_lo)
  hi, lo = hi + more_hi, lo + more_lo
  if lo >= BASE then
    return hi + 1, lo - BASE
  end
  return hi, lo
end

local function less(hi, lo, than_hi, than_lo)
  return hi < than_hi or (hi == than_hi and lo < than_lo)
end

local function subtract(hi, lo, less_hi, less_lo) -- never below zero
  if less(hi, lo, less_hi, less_lo) then
    return 0, 0
  end
  hi, lo = hi - less_hi, lo - less_lo
  if lo < 0 then
    return hi - 1, lo + BASE
  end
  return hi, lo
end

-- Windows, as `window_at` has them.

local function days_from_civil(year, month) -- of the first of a month
  if month <= 2 then
    year = year - 1
  end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

local function months_at(moment) -- since the year 0
  local days = math.floor(moment / 86400) + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = (math.floor((5 * day + 2) / 153) + 2) % 12
  year = year + era * 400
  if month < 2 then
    year = year + 1
  end
  return year * 12 + month
end

local function number_at(moment, window)
  if window == 0 then
    return 0
  elseif window < 0 then
    return math.floor(months_at(moment) / -window)
  end
  local since = moment - MONDAY
  local into = math.fmod(since, window)
  if into < 0 then
    into = into + window
  end
  return (since - into) / window
end

local function end_of(window, number) -- nil: never
  if window > 0 then
    return MONDAY + (number + 1) * window
  elseif window < 0 then
    local months = (number + 1) * -window
    return days_from_civil(math.floor(months / 12), months % 12 + 1) * 86400
  end
end

local function resets_in(window, number)
  local ends = end_of(window, number)
  return ends and string.format('%.17g', ends - now) or ''
end

-- Counts. One is a table: the two halves of what is settled, those of what is reserved, and whether it was found.

local function counts_of(window, number)
  return string.format('%s:counts:%d:%d', tag, window, number)
end

local function load(counts, scope)
  local found = redis.call('HGET', counts, scope)
  if not found then
    return { 0, 0, 0, 0, false }
  end
  local space = found:find(' ', 1, true)
  local settled_hi, settled_lo = parse(found:sub(1, space - 1))
  local reserved_hi, reserved_lo = parse(found:sub(space + 1))
  return { settled_hi, settled_lo, reserved_hi, reserved_lo, true }
end

local function save(window, number, scope, count)
  local counts = counts_of(window, number)
  local settled, reserved = show(count[1], count[2]), show(count[3], count[4])
  if settled == '0' and reserved == '0' then
    if count[5] then
      redis.call('HDEL', counts, scope)
    end
    return
  end
  if count[5] or window == 0 then
    redis.call('HSET', counts, scope, settled .. ' ' .. reserved)
    return
  end
  -- The last ended window stays: a clock that steps back may still need it.
  local length = window > 0 and window or -window * 31 * 86400
  local left = end_of(window, number) + math.max(length, KEPT) - now
  if left > 0 then
    redis.call('HSET', counts, scope, settled .. ' ' .. reserved)
    if redis.call('PTTL', counts) < 0 then
      redis.call('PEXPIRE', counts, string.format('%d', math.ceil(left * 1000)))
    end
  end
end

local function move(window, number, scope, charged, taken_back, released)
  local count = load(counts_of(window, number), scope)
  local hi, lo = add(count[1], count[2], parse(charged))
  hi, lo = subtract(hi, lo, parse(taken_back))
  local max_hi, max_lo = parse(MAX)
  if less(max_hi, max_lo, hi, lo) then
    hi, lo = max_hi, max_lo
  end
  count[1], count[2] = hi, lo
  count[3], count[4] = subtract(count[3], count[4], parse(released))
  save(window, number, scope, count)
end

local function epoch_or(new)
  local epoch = redis.call('GET', EPOCH)
  if not epoch then
    redis.call('SET', EPOCH, new)
  end
  return epoch or new
end

-- The phases.

local function reserve(id, lease, forwarded) -- then for each hold: scope, window, limit, amount, slot
  if redis.call('HEXISTS', RESERVATIONS, id) == 1 then
    return { 'exists' }
  end
  local holds, taken, seen = {}, {}, {}
  for at = 6, #ARGV, 5 do
    local scope, window = ARGV[at], tonumber(ARGV[at + 1])
    local number = number_at(now, window)
    local counts = counts_of(window, number)
    seen[counts] = seen[counts] or {}
    local count = seen[counts][scope] or load(counts, scope)
    seen[counts][scope] = count
    local limit_hi, limit_lo = parse(ARGV[at + 2])
    local amount_hi, amount_lo = parse(ARGV[at + 3])
    local hi, lo = add(count[1], count[2], count[3], count[4])
    local wanted_hi, wanted_lo = add(hi, lo, amount_hi, amount_lo)
    if less(limit_hi, limit_lo, wanted_hi, wanted_lo) then
      local left = show(subtract(limit_hi, limit_lo, hi, lo))
      return { 'denied', (at - 6) / 5, left, resets_in(window, number) }
    end
    count[3], count[4] = add(count[3], count[4], amount_hi, amount_lo)
    holds[#holds + 1] = { window, number, scope, count }
    local packed = #taken
    taken[packed + 1], taken[packed + 2], taken[packed + 3] = window, number, scope
    taken[packed + 4], taken[packed + 5] = ARGV[at + 3], ARGV[at + 4]
  end
  local answer = { 'granted', epoch_or(id) }
  for _, hold in ipairs(holds) do
    local window, number, scope, count = hold[1], hold[2], hold[3], hold[4]
    save(window, number, scope, count)
    count[5] = true
    local at = #answer
    answer[at + 1], answer[at + 2] = show(count[1], count[2]), show(count[3], count[4])
    answer[at + 3] = resets_in(window, number)
  end
  redis.call('HSET', RESERVATIONS, id, forwarded .. cmsgpack.pack(taken))
  redis.call('ZADD', LEASES, string.format('%.17g', now + tonumber(lease)), id)
  return answer
end

local function forward(id, lease)
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and record:sub(1, 1)
  if state == '0' then
    redis.call('HSET', RESERVATIONS, id, '1' .. record:sub(2))
  elseif state ~= '1' then
    return 0
  end
  redis.call('ZADD', LEASES, string.format('%.17g', now + tonumber(lease)), id)
  return 1
end

local function settle(id, first, last) -- the amounts are ARGV[first] to ARGV[last]. Not as many as holds: minus 1, minus those
  local record = redis.call('HGET', RESERVATIONS, id)
  if not record then
    return 0
  end
  local state, taken = record:sub(1, 1), cmsgpack.unpack(record:sub(2))
  if (last - first + 1) * 5 ~= #taken then
    return -1 - #taken / 5
  end
  for at = 1, #taken, 5 do
    local held, slot = taken[at + 3], taken[at + 4] == '1'
    local used = slot and '0' or ARGV[first + (at - 1) / 5]
    local live = state == '0' or state == '1'
    local charged = (state == '3' and not slot) and held or '0'
    move(taken[at], taken[at + 1], taken[at + 2], used, charged, live and held or '0')
  end
  redis.call('HDEL', RESERVATIONS, id)
  redis.call('ZREM', LEASES, id)
  redis.call('ZREM', LATE, id)
  return 1
end

local function forget_notes()
  local gone = redis.call('ZRANGEBYSCORE', NOTES, '-inf', string.format('%.17g', now), 'LIMIT', 0, PURGE)
  for _, member in ipairs(gone) do
    local place = cmsgpack.unpack(member)
    redis.call('HDEL', tag .. ':board:' .. place[1], place[2])
    redis.call('ZREM', NOTES, member)
  end
end

local function expire(batch, late, epoch) -- then settles to make up for: id, how many amounts, the amounts
  local settled, at = {}, 6
  while at < #ARGV do
    local amounts = tonumber(ARGV[at + 1])
    settled[#settled + 1] = settle(ARGV[at], at + 2, at + 1 + amounts)
    at = at + 2 + amounts
  end
  local ended = {}
  local moment = string.format('%.17g', now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', moment, 'LIMIT', 0, batch)) do
    local record = redis.call('HGET', RESERVATIONS, id)
    redis.call('ZREM', LEASES, id)
    if record then
      local forwarded, taken = record:sub(1, 1) == '1', cmsgpack.unpack(record:sub(2))
      local report = { id, forwarded and 1 or 0 }
      for hold = 1, #taken, 5 do
        local held = taken[hold + 3]
        local charged = (forwarded and taken[hold + 4] == '0') and held or '0'
        move(taken[hold], taken[hold + 1], taken[hold + 2], charged, '0', held)
        report[#report + 1] = taken[hold + 2]
        report[#report + 1] = charged
      end
      redis.call('HSET', RESERVATIONS, id, (forwarded and '3' or '2') .. record:sub(2))
      redis.call('ZADD', LATE, moment, id)
      ended[#ended + 1] = report
    end
  end
  local oldest = string.format('%.17g', now - tonumber(late))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LATE, '-inf', oldest, 'LIMIT', 0, PURGE)) do
    redis.call('HDEL', RESERVATIONS, id)
    redis.call('ZREM', LATE, id)
  end
  forget_notes()
  return { epoch_or(epoch), settled, ended }
end

local function levels() -- pairs of scope and window
  local answer = {}
  for at = 3, #ARGV, 2 do
    local window = tonumber(ARGV[at + 1])
    local number = number_at(now, window)
    local count = load(counts_of(window, number), ARGV[at])
    answer[#answer + 1] = show(count[1], count[2])
    answer[#answer + 1] = show(count[3], count[4])
    answer[#answer + 1] = resets_in(window, number)
  end
  return answer
end

local function share(board, author, note, ttl)
  forget_notes()
  local notes, member = tag .. ':board:' .. board, cmsgpack.pack({ board, author })
  redis.call('HDEL', notes, author)
  redis.call('ZREM', NOTES, member)
  local others = redis.call('HGETALL', notes)
  if note ~= '' then
    redis.call('HSET', notes, author, note)
    redis.call('ZADD', NOTES, string.format('%.17g', now + tonumber(ttl)), member)
  end
  return others
end

if phase == 'reserve' then
  return reserve(ARGV[3], ARGV[4], ARGV[5])
elseif phase == 'forward' then
  return forward(ARGV[3], ARGV[4])
elseif phase == 'settle' then
  return settle(ARGV[3], 4, #ARGV)
elseif phase == 'expire' then
  return expire(ARGV[3], ARGV[4], ARGV[5])
elseif phase == 'levels' then
  return levels()
elseif phase == 'share' then
  return share(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
return redis.error_reply('ERR unknown phase')
