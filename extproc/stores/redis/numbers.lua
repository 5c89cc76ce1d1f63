-- Arithmetic of counters.lua; it stands before it in the script.

-- Integers to 2^63-1 (MAX). Lua has only doubles, exact to 2^53, so a number is two of them: hi * BASE + lo.

local BASE, MAX = 1e10, '9223372036854775807'

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

local MONDAY = 4 * 86400

local function days_from_civil(year, month) -- days to the first of a month
  if month <= 2 then
    year = year - 1
  end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

local function months_at(moment) -- months since the year 0
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
