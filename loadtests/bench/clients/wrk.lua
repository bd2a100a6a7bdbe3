-- Fills in and sends the requests of one workload (loadtests/bench/clients/workload.py) and prints what came of it as one line of JSON.
-- Called as: wrk -t1 ... -s wrk.lua http://host:port -- workload.lua seed

local workload, head, item
local counter, payer = 0, nil
local threads = {}
rejected_items = 0 -- global: done() reads it out of each thread's own state

function setup(thread)
  table.insert(threads, thread)
end

-- Splits a template into literals (strings) and the functions that fill in what stands between them.
local function compile(template)
  local fill = {
    key = function() counter = counter + 1; return string.format("%s%09d", workload.key_prefix, counter) end,
    from = function() payer = math.random(workload.accounts); return string.format("%06d", payer) end,
    to = function()
      local payee = math.random(workload.accounts - 1)
      if payer and payee >= payer then payee = payee + 1 end
      return string.format("%06d", payee)
    end,
    amount = function() return tostring(math.random(100, 999)) end,
    token = function() return workload.tokens[math.random(#workload.tokens)] end,
    at = function() return os.date("!%Y-%m-%dT%H:%M:%SZ", math.random(workload.earliest, workload.latest)) end,
  }
  local pieces, position = {}, 1
  for start, name, stop in template:gmatch("()<(%l+)>()") do
    if fill[name] then
      table.insert(pieces, template:sub(position, start - 1))
      table.insert(pieces, fill[name])
      position = stop
    end
  end
  table.insert(pieces, template:sub(position))
  return pieces
end

local function append(parts, pieces)
  for index = 1, #pieces do
    local piece = pieces[index]
    parts[#parts + 1] = type(piece) == "string" and piece or piece()
  end
end

-- Defined only when bodies are checked: wrk parses every answer's headers into a table as soon as `response` exists.
local function check(status, _, body)
  local found, position = 0, 1
  while true do
    local _, stop = body:find(workload.expect, position, true)
    if not stop then break end
    found, position = found + 1, stop + 1
  end
  if status < 400 and found ~= workload.items then rejected_items = rejected_items + workload.items - found end
end

function init(arguments)
  workload = dofile(arguments[1])
  math.randomseed(tonumber(arguments[2]))
  head, item = compile(workload.head), compile(workload.item)
  if workload.expect ~= "" then response = check end
end

function request()
  local parts = {}
  append(parts, head)
  for number = 1, workload.items do
    if number > 1 then parts[#parts + 1] = "," end
    append(parts, item)
  end
  parts[#parts + 1] = workload.tail
  return table.concat(parts)
end

function done(summary, latency, _)
  local missing = 0
  for _, thread in ipairs(threads) do missing = missing + thread:get("rejected_items") end
  local errors = summary.errors
  print(string.format(
    '\nRESULT {"requests":%d,"seconds":%.6f,"latency_ms":{"p50":%.4f,"p90":%.4f,"p95":%.4f,"p99":%.4f,"p99.9":%.4f,'
      .. '"mean":%.4f,"max":%.4f},"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d,"item":%d}}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.mean / 1e3, latency.max / 1e3,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status, missing))
end
