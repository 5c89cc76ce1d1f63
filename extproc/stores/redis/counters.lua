-- Every phase of the counters, one call each: counters.py sends it, and extproc/stores/__init__.py has its
-- contract. All keys have the hash tag of KEYS[1], so they are on one node of a cluster.
--
-- KEYS[1] the hash tag with its braces · ARGV[1] the phase · ARGV[2] the time, or '' for this server's clock · the rest
-- by phase. No call writes before all its checks have passed.
--
--   TAG:counts:WINDOW:NUMBER   hash   scope -> 'settled reserved', and ' idle' seconds where it may be forgotten; scopes
--                                     that are all zero only where they may be forgotten; ends by its TTL
--   TAG:idle                   zset   scope without a window, by when it may be forgotten
--   TAG:reservations           hash   id -> state, then packed: its holds (window, number, scope, amount, slot, ...), its facts
--   TAG:leases                 zset   id by the end of its lease; states 0 (reserved), 1 (forwarded), and of those that
--                                     were settled and kept 4 (was reserved) and 5 (was forwarded): amounts as charged;
--                                     3 too, by the time of its next report, until it is recorded
--   TAG:late                   zset   id by when it was ended; states 2 (was released, or voided: then without holds) and 3
--                                     (was charged)
--   TAG:parked                 zset   id by when it is due; state 6 (forwarded, and its exchange has ended)
--   TAG:board:BOARD            hash   author -> note
--   TAG:notes                  zset   {board, author} packed, by when the note runs out
--   TAG:epoch                  string written once: a different one means that everything before it is lost

local tag, phase, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local RESERVATIONS, LEASES, LATE = tag .. ':reservations', tag .. ':leases', tag .. ':late'
local PARKED = tag .. ':parked'
local IDLE = tag .. ':idle'
local NOTES, EPOCH = tag .. ':notes', tag .. ':epoch'
local KEPT = 3600 -- seconds that the counts of an ended window stay at least, for holds that are still open there
local CORRECTED = 60 -- seconds for which the charge of a late settle is kept, before it is reported again
local PURGE = 1000 -- entries forgotten by one call, at most

local function resets_in(window, number)
  local ends = end_of(window, number)
  return ends and string.format('%.17g', math.max(0, ends - now)) or ''
end

-- Counts. One is a table: the two halves of the settled amount, those of the reserved amount, true when it was found,
-- the seconds it may be idle (0: for ever), and true when it could be forgotten until now.

local function counts_of(window, number)
  return string.format('%s:counts:%d:%d', tag, window, number)
end

local function load(counts, scope)
  local found = redis.call('HGET', counts, scope)
  if not found then
    return { 0, 0, 0, 0, false, 0, false }
  end
  local settled, reserved, idle = found:match('^(%d+) (%d+) ?(.*)$')
  local settled_hi, settled_lo = parse(settled)
  local reserved_hi, reserved_lo = parse(reserved)
  idle = tonumber(idle) or 0
  return { settled_hi, settled_lo, reserved_hi, reserved_lo, true, idle, idle > 0 }
end

local function save(window, number, scope, count, least) -- the count stays for `least` seconds, if it may be forgotten
  local counts = counts_of(window, number)
  local settled, reserved = show(count[1], count[2]), show(count[3], count[4])
  if window == 0 and count[6] > 0 then
    redis.call('HSET', counts, scope, string.format('%s %s %.17g', settled, reserved, count[6]))
    local idle_at = string.format('%.17g', now + math.max(count[6], least or 0))
    redis.call('ZADD', IDLE, 'GT', idle_at, scope)
    return
  elseif count[7] then
    redis.call('ZREM', IDLE, scope)
  end
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

local function move(window, number, scope, charged, taken_back, released, least)
  local count = load(counts_of(window, number), scope)
  local hi, lo = add(count[1], count[2], parse(charged))
  hi, lo = subtract(hi, lo, parse(taken_back))
  local max_hi, max_lo = parse(MAX)
  if less(max_hi, max_lo, hi, lo) then
    hi, lo = max_hi, max_lo
  end
  count[1], count[2] = hi, lo
  count[3], count[4] = subtract(count[3], count[4], parse(released))
  save(window, number, scope, count, least)
end

local function epoch_or(new)
  local epoch = redis.call('GET', EPOCH)
  if not epoch then
    redis.call('SET', EPOCH, new)
  end
  return epoch or new
end

-- The phases.

-- Take holds, or return the one without room: ARGV from `first`, for each its scope, window, limit, amount, slot, idle.
-- With `taken`, a reservation's holds, they are added to it, in its windows.
local function take(answer, first, taken)
  local extends = #taken > 0
  local holds, seen = {}, {}
  for at = first, #ARGV, 6 do
    local index = (at - first) / 6
    local packed = index * 5
    local scope, window = ARGV[at], tonumber(ARGV[at + 1])
    local number = extends and taken[packed + 2] or number_at(now, window)
    local counts = counts_of(window, number)
    seen[counts] = seen[counts] or {}
    local count = seen[counts][scope] or load(counts, scope)
    seen[counts][scope] = count
    local limit_hi, limit_lo = parse(ARGV[at + 2])
    local amount_hi, amount_lo = parse(ARGV[at + 3])
    local hi, lo = add(count[1], count[2], count[3], count[4])
    local wanted_hi, wanted_lo = add(hi, lo, amount_hi, amount_lo)
    local asks = not extends or amount_hi + amount_lo > 0
    if asks and less(limit_hi, limit_lo, wanted_hi, wanted_lo) then
      return { 'denied', index, show(subtract(limit_hi, limit_lo, hi, lo)), resets_in(window, number) }
    end
    count[3], count[4] = add(count[3], count[4], amount_hi, amount_lo)
    count[6] = tonumber(ARGV[at + 5])
    holds[#holds + 1] = { window, number, scope, count }
    if extends then
      amount_hi, amount_lo = add(amount_hi, amount_lo, parse(taken[packed + 4]))
    end
    taken[packed + 1], taken[packed + 2], taken[packed + 3] = window, number, scope
    taken[packed + 4], taken[packed + 5] = show(amount_hi, amount_lo), ARGV[at + 4]
  end
  for _, hold in ipairs(holds) do
    local window, number, scope, count = hold[1], hold[2], hold[3], hold[4]
    save(window, number, scope, count)
    count[5], count[7] = true, count[6] > 0
    local at = #answer
    answer[at + 1], answer[at + 2] = show(count[1], count[2]), show(count[3], count[4])
    answer[at + 3] = resets_in(window, number)
  end
  return answer
end

local function reserve(id, lease, facts) -- then the holds
  if redis.call('HEXISTS', RESERVATIONS, id) == 1 then
    return { 'exists' }
  end
  local taken = {}
  local answer = take({ 'granted', '' }, 6, taken)
  if answer[1] == 'granted' then
    answer[2] = epoch_or(id)
    redis.call('HSET', RESERVATIONS, id, '0' .. cmsgpack.pack(taken, facts))
    redis.call('ZADD', LEASES, string.format('%.17g', now + tonumber(lease)), id)
  end
  return answer
end

local function extend(id) -- then the holds
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and record:sub(1, 1)
  if state ~= '0' and state ~= '1' then
    return { 'gone' }
  end
  local taken, facts = cmsgpack.unpack(record:sub(2))
  local same = (#ARGV - 3) / 6 == #taken / 5
  for at = 1, same and #taken or 0, 5 do
    local other = 4 + (at - 1) / 5 * 6
    local window, slot = tonumber(ARGV[other + 1]), ARGV[other + 4]
    same = same and window == taken[at] and ARGV[other] == taken[at + 2] and slot == taken[at + 4]
  end
  if not same then
    return { 'others' }
  end
  local answer = take({ 'granted', '' }, 4, taken)
  if answer[1] == 'granted' then
    answer[2] = epoch_or(id)
    redis.call('HSET', RESERVATIONS, id, state .. cmsgpack.pack(taken, facts))
  end
  return answer
end

local function forward(late) -- ids
  for at = 4, #ARGV do
    local id = ARGV[at]
    local record = redis.call('HGET', RESERVATIONS, id)
    local state = record and record:sub(1, 1)
    if state == '0' then
      redis.call('HSET', RESERVATIONS, id, '1' .. record:sub(2))
    elseif state == '2' then
      local taken = cmsgpack.unpack(record:sub(2))
      for hold = 1, #taken, 5 do
        local charged = taken[hold + 4] == '0' and taken[hold + 3] or '0'
        move(taken[hold], taken[hold + 1], taken[hold + 2], charged, '0', '0', tonumber(late))
      end
      redis.call('HSET', RESERVATIONS, id, '3' .. record:sub(2))
      redis.call('ZREM', LATE, id)
      redis.call('ZADD', LEASES, string.format('%.17g', now), id)
    end
  end
  return 1
end

local function void() -- ids
  local moment = string.format('%.17g', now)
  for at = 3, #ARGV do
    local id = ARGV[at]
    local record = redis.call('HGET', RESERVATIONS, id)
    local state = record and record:sub(1, 1)
    if not record or state == '0' then
      local taken = record and cmsgpack.unpack(record:sub(2)) or {}
      for hold = 1, #taken, 5 do
        move(taken[hold], taken[hold + 1], taken[hold + 2], '0', '0', taken[hold + 3])
      end
      redis.call('HSET', RESERVATIONS, id, '2' .. cmsgpack.pack({}, ''))
      redis.call('ZREM', LEASES, id)
      redis.call('ZADD', LATE, moment, id)
    end
  end
  return 1
end

local function renew(lease) -- ids
  local ends = string.format('%.17g', now + tonumber(lease))
  for at = 4, #ARGV do
    local record = redis.call('HGET', RESERVATIONS, ARGV[at])
    if record and (record:sub(1, 1) == '0' or record:sub(1, 1) == '1') then
      redis.call('ZADD', LEASES, ends, ARGV[at])
    end
  end
  return 1
end

local function park(id, facts, lease, again, most)
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and record:sub(1, 1)
  if state ~= '0' and state ~= '1' and state ~= '6' then
    return 0
  end
  if state ~= '6' and redis.call('ZCARD', PARKED) >= tonumber(most) then
    return 0
  end
  local taken = cmsgpack.unpack(record:sub(2))
  for hold = 1, #taken, 5 do
    if taken[hold + 4] == '1' then
      move(taken[hold], taken[hold + 1], taken[hold + 2], '0', '0', taken[hold + 3])
      taken[hold + 3] = '0'
    end
  end
  redis.call('HSET', RESERVATIONS, id, '6' .. cmsgpack.pack(taken, facts))
  redis.call('ZADD', LEASES, string.format('%.17g', now + tonumber(lease)), id)
  redis.call('ZADD', PARKED, string.format('%.17g', now + tonumber(again)), id)
  return 1
end

local function parked(again, most, only)
  local due, found = { only }, {}
  if only == '' then
    due = redis.call('ZRANGEBYSCORE', PARKED, '-inf', string.format('%.17g', now), 'LIMIT', 0, most)
  end
  for _, id in ipairs(due) do
    local record = redis.call('HGET', RESERVATIONS, id)
    if record and record:sub(1, 1) == '6' then
      local taken, facts = cmsgpack.unpack(record:sub(2))
      redis.call('ZADD', PARKED, string.format('%.17g', now + tonumber(again)), id)
      local one = { id, facts }
      for hold = 1, #taken, 5 do
        one[#one + 1] = taken[hold + 2]
        one[#one + 1] = taken[hold + 3]
      end
      found[#found + 1] = one
    end
  end
  return found
end

-- The amounts begin at ARGV[5]. If their number differs from the holds': -1 minus the number of holds.
local function settle(id, keep)
  local record = redis.call('HGET', RESERVATIONS, id)
  local state = record and record:sub(1, 1)
  if not record or state == '4' or state == '5' then
    return 0
  end
  local taken, facts = cmsgpack.unpack(record:sub(2))
  if (#ARGV - 4) * 5 ~= #taken then
    return -1 - #taken / 5
  end
  local live = state == '0' or state == '1' or state == '6'
  for at = 1, #taken, 5 do
    local held, slot = taken[at + 3], taken[at + 4] == '1'
    local used = slot and '0' or ARGV[5 + (at - 1) / 5]
    local charged = (state == '3' and not slot) and held or '0'
    move(taken[at], taken[at + 1], taken[at + 2], used, charged, live and held or '0')
    taken[at + 3] = used
  end
  redis.call('ZREM', LATE, id)
  if state == '6' then
    redis.call('ZREM', PARKED, id)
  end
  if keep then
    local forwarded = state == '1' or state == '3' or state == '6'
    redis.call('HSET', RESERVATIONS, id, (forwarded and '5' or '4') .. cmsgpack.pack(taken, facts))
    if not live or state == '6' then
      redis.call('ZADD', LEASES, string.format('%.17g', now + CORRECTED), id)
    end
    return 1
  end
  redis.call('HDEL', RESERVATIONS, id)
  redis.call('ZREM', LEASES, id)
  return 1
end

local function recorded(expired) -- ids
  for at = 4, #ARGV do
    local state = redis.call('HGET', RESERVATIONS, ARGV[at])
    state = state and state:sub(1, 1)
    if not expired and (state == '4' or state == '5') then
      redis.call('HDEL', RESERVATIONS, ARGV[at])
      redis.call('ZREM', LEASES, ARGV[at])
    elseif state == '3' and redis.call('ZREM', LEASES, ARGV[at]) == 1 then
      redis.call('ZADD', LATE, string.format('%.17g', now), ARGV[at])
    end
  end
  return 1
end

local function forget_idle()
  local counts = counts_of(0, 0)
  local moment = string.format('%.17g', now)
  for _, scope in ipairs(redis.call('ZRANGEBYSCORE', IDLE, '-inf', moment, 'LIMIT', 0, PURGE)) do
    local count = load(counts, scope)
    if count[3] > 0 or count[4] > 0 then -- in use: behind the others, which have their turn
      redis.call('ZADD', IDLE, moment, scope)
    else
      redis.call('HDEL', counts, scope)
      redis.call('ZREM', IDLE, scope)
    end
  end
end

local function forget_notes()
  local gone = redis.call('ZRANGEBYSCORE', NOTES, '-inf', string.format('%.17g', now), 'LIMIT', 0, PURGE)
  for _, member in ipairs(gone) do
    local place = cmsgpack.unpack(member)
    redis.call('HDEL', tag .. ':board:' .. place[1], place[2])
    redis.call('ZREM', NOTES, member)
  end
end

local function expire(batch, late, epoch, keep)
  local ended = {}
  local moment = string.format('%.17g', now)
  local again = tonumber(keep) > 0 and string.format('%.17g', now + tonumber(keep))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', moment, 'LIMIT', 0, batch)) do
    local record = redis.call('HGET', RESERVATIONS, id)
    redis.call('ZREM', LEASES, id)
    if record then
      local state, taken, facts = record:sub(1, 1), cmsgpack.unpack(record:sub(2))
      local forwarded = state == '1' or state == '3' or state == '5' or state == '6'
      local kept = state == '4' or state == '5'
      if state == '6' then
        redis.call('ZREM', PARKED, id)
      end
      local report = { id, forwarded and 1 or 0, kept and 1 or 0, facts }
      for hold = 1, #taken, 5 do
        local held = taken[hold + 3]
        local charged = kept and held or (forwarded and taken[hold + 4] == '0') and held or '0'
        if not kept and state ~= '3' then
          move(taken[hold], taken[hold + 1], taken[hold + 2], charged, '0', held, tonumber(late))
        end
        report[#report + 1] = taken[hold + 2]
        report[#report + 1] = charged
      end
      if not kept then
        redis.call('HSET', RESERVATIONS, id, (forwarded and '3' or '2') .. record:sub(2))
      end
      if again and (kept or forwarded) then
        redis.call('ZADD', LEASES, again, id)
      elseif kept then
        redis.call('HDEL', RESERVATIONS, id)
      else
        redis.call('ZADD', LATE, moment, id)
      end
      ended[#ended + 1] = report
    end
  end
  local oldest = string.format('%.17g', now - tonumber(late))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LATE, '-inf', oldest, 'LIMIT', 0, PURGE)) do
    redis.call('HDEL', RESERVATIONS, id)
    redis.call('ZREM', LATE, id)
  end
  forget_idle()
  forget_notes()
  return { epoch_or(epoch), ended }
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

local function reset(scope, window)
  window = tonumber(window)
  local number = number_at(now, window)
  local count = load(counts_of(window, number), scope)
  local was = show(count[1], count[2])
  if was ~= '0' then
    count[1], count[2] = 0, 0
    save(window, number, scope, count)
  end
  return was
end

local function fullest(pattern, window, number, cursor, page) -- a page of the counts, and the cursor of the next
  window = tonumber(window)
  number = tonumber(number) or number_at(now, window)
  local found = redis.call('HSCAN', counts_of(window, number), cursor, 'MATCH', pattern, 'COUNT', page)
  return { string.format('%d', number), resets_in(window, number), found[1], found[2] }
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
  return forward(ARGV[3])
elseif phase == 'void' then
  return void()
elseif phase == 'renew' then
  return renew(ARGV[3])
elseif phase == 'park' then
  return park(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
elseif phase == 'parked' then
  return parked(ARGV[3], ARGV[4], ARGV[5])
elseif phase == 'settle' then
  return settle(ARGV[3], ARGV[4] == '1')
elseif phase == 'extend' then
  return extend(ARGV[3])
elseif phase == 'recorded' then
  return recorded(ARGV[3] == '1')
elseif phase == 'fullest' then
  return fullest(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
elseif phase == 'expire' then
  return expire(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
elseif phase == 'levels' then
  return levels()
elseif phase == 'reset' then
  return reset(ARGV[3], ARGV[4])
elseif phase == 'share' then
  return share(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
return redis.error_reply('ERR unknown phase')
