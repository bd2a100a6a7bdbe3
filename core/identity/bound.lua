-- Count within a window that begins with the first count. KEYS[1]: the counter. ARGV: most, seconds, the count to add
-- (0: only look). Returns 0, or the milliseconds until there is room; then nothing was added.
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then
    return math.max(1, redis.call('PTTL', KEYS[1]))
end
if ARGV[3] ~= '0' and redis.call('INCR', KEYS[1]) == 1 then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 0
