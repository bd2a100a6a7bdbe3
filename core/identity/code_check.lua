-- One try at a sign-in code, as a whole, so that of two tries at the same time one sees the other done. KEYS[1]: the
-- prefix of the phone's names. ARGV: session (empty: the newest), digest of the typed code, most tries, seconds for
-- which failures are counted. Returns {0, 0} right, {1, 0} wrong or not there, {2, milliseconds} locked.
local of_phone, session, tried = KEYS[1], ARGV[1], ARGV[2]
local locked = redis.call('PTTL', of_phone .. 'lock')
if locked > 0 then
    return {2, locked}
end
local newest = redis.call('GET', of_phone .. 'newest')
if session == '' then
    session = newest
end
if not session then
    return {1, 0}
end
local code = of_phone .. 'code:' .. session
local found = redis.call('HMGET', code, 'digest', 'tries')
if not found[1] or tonumber(found[2]) >= tonumber(ARGV[3]) then
    return {1, 0}
end
redis.call('HINCRBY', code, 'tries', 1)
-- The comparison takes the same time wherever the digests differ.
local difference = #tried == #found[1] and 0 or 1
for at = 1, math.min(#tried, #found[1]) do
    difference = bit.bor(difference, bit.bxor(tried:byte(at), found[1]:byte(at)))
end
if difference == 0 then
    redis.call('DEL', code, of_phone .. 'failures')
    if newest == session then
        redis.call('DEL', of_phone .. 'newest')
    end
    return {0, 0}
end
local failures = redis.call('INCR', of_phone .. 'failures')
if failures == 1 then
    redis.call('EXPIRE', of_phone .. 'failures', ARGV[4])
end
-- These locks, in seconds, are the wallet contract's (section 2).
local lock = failures >= 7 and 600 or failures == 5 and 300 or failures == 3 and 120 or 0
if lock > 0 then
    redis.call('SET', of_phone .. 'lock', 1, 'EX', lock)
end
return {1, 0}
