-- Count a batch of requests against their rate limits, and mark, look up or store answers under idempotency keys.
--
-- KEYS[1]  the common prefix of all names, which holds the hash tag; a cluster routes by it
-- ARGV[1]  packed: name, step_us, burst_us, window_us (0: none) of each bucket that this batch touches, and the cost of
--          requests that were admitted before they were counted here
-- ARGV[2]  packed, per request: number of its key's bucket, of its address's bucket (0: none), cost, name of its
--          idempotency key ('': none), the mark to leave there
-- ARGV[3]  packed: name, mark of marks to take away
-- ARGV[4], ARGV[5]  the life of a mark and of an answer, in milliseconds
-- ARGV[6] ...  name, answer of answers to store
--
-- The reply has three integers a request: verdict, and the microseconds until each of its two buckets is full again
-- (of a window that refuses, so many that the request has room once a whole burst less its cost is left of them); after
-- them, in order, the values of the verdicts FOUND. Packing costs a third of one argument per field.
local ADMITTED, MARKED, REFUSED, FOUND = 0, 1, 2, 3

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local buckets, requests, releases = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local mark_ms, answer_ms = ARGV[4], ARGV[5]

for at = 6, #ARGV, 2 do
  -- The mark does not matter: an answer is frozen, so every process stores the same one.
  call('SET', ARGV[at], ARGV[at + 1], 'PX', answer_ms)
end
-- GCRA: a bucket is one number, the time at which it will be full again; `fill` is how far ahead of now that lies.
-- Bucket 0 stands for "no limit": it costs nothing and never overflows.
--
-- A window lets no more than its burst through in any `window_us`, where a bucket lets twice as many. It is a list of
-- seconds and the requests in each; a request counts until its whole second has left the window.
local SECOND = 1000000
local this_second = math.floor(now / SECOND)
local name, step, burst, fill, changed = {}, { [0] = 0 }, { [0] = 0 }, { [0] = 0 }, {}
local window, seconds = {}, {}
for at = 1, #buckets, 5 do
  local number = #name + 1
  name[number], step[number], burst[number] = buckets[at], buckets[at + 1], buckets[at + 2]
  local kept = call('GET', name[number])
  if buckets[at + 3] > 0 then
    window[number], seconds[number], fill[number] = buckets[at + 3] / SECOND, {}, 0
    local had = kept and cmsgpack.unpack(kept) or {}
    for place = 1, #had, 2 do
      if had[place] + window[number] >= this_second then
        -- A clock that was set back has seen seconds that are to come; they count from now.
        local entry = { math.min(had[place], this_second), had[place + 1] }
        seconds[number][#seconds[number] + 1] = entry
        fill[number] = fill[number] + entry[2] * step[number]
      end
    end
  else
    -- The cap keeps a clock that was set back, or a lowered limit, from shutting anyone out for longer than one burst.
    fill[number] = kept and math.min(math.max(kept - now, 0), burst[number]) or 0
    if buckets[at + 4] > 0 then
      fill[number] = math.min(fill[number] + buckets[at + 4] * step[number], burst[number])
      changed[number] = true
    end
  end
end

-- Add requests to the current second of a window.
local function note(number, cost)
  local entries = seconds[number]
  local last = entries[#entries]
  if last and last[1] == this_second then
    last[2] = last[2] + cost
  else
    entries[#entries + 1] = { this_second, cost }
  end
end

-- Return the microseconds until so many old seconds have left a window that `cost` has room.
local function wait(number, cost)
  local left, lacking = now, fill[number] + cost * step[number] - burst[number]
  for _, entry in ipairs(seconds[number]) do
    if lacking <= 0 then
      break
    end
    lacking = lacking - entry[2] * step[number]
    left = (entry[1] + window[number] + 1) * SECOND
  end
  return left - now
end

local answer, found = {}, {}
local length = 0
for at = 1, #requests, 5 do
  local key, address, cost, idempotency_key = requests[at], requests[at + 1], requests[at + 2], requests[at + 3]
  local key_fill = fill[key] + cost * step[key]
  local address_fill = fill[address] + cost * step[address]
  local verdict, shown = ADMITTED, nil
  if key_fill > burst[key] or address_fill > burst[address] then
    verdict = REFUSED
    shown = window[key] and wait(key, cost) + burst[key] - cost * step[key]
  else
    fill[key], fill[address] = key_fill, address_fill
    changed[key], changed[address] = true, true
    if window[key] then
      note(key, cost)
    end
    if idempotency_key ~= '' then
      if call('SET', idempotency_key, requests[at + 4], 'NX', 'PX', mark_ms) then
        verdict = MARKED
      else
        verdict = FOUND
        found[#found + 1] = call('GET', idempotency_key)
      end
    end
  end
  answer[length + 1], answer[length + 2], answer[length + 3] = verdict, shown or fill[key], fill[address]
  length = length + 3
end

for number = 1, #name do
  if changed[number] and window[number] then
    local flat = {}
    for _, entry in ipairs(seconds[number]) do
      flat[#flat + 1], flat[#flat + 2] = entry[1], entry[2]
    end
    call('SET', name[number], cmsgpack.pack(flat), 'EX', window[number] + 2)
  elseif changed[number] then
    call('SET', name[number], now + fill[number], 'PX', math.ceil(fill[number] / 1000))
  end
end
-- Marks go last, because a request whose caller went away may itself be in this batch.
for at = 1, #releases, 2 do
  if call('GET', releases[at]) == releases[at + 1] then
    call('DEL', releases[at])
  end
end
for at = 1, #found do
  answer[length + at] = found[at]
end
return answer
