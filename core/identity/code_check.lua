-- One try at a sign-in code, as a whole, so that of two tries at the same time one sees the other done. KEYS[1]: the
-- prefix of the phone's names. ARGV: session (empty: the newest), digest of the typed code, most tries, seconds for
-- which failures are counted, and the one who tries (a digest of the address). Returns {0, 0} right, {1, 0} wrong,
-- {2, milliseconds} locked, {3, 0} not there.
local of_phone, session, tried, trier = KEYS[1], ARGV[1], ARGV[2], ARGV[5]
local named = session ~= ''
if not named then
    -- The newest code that this address has asked for, so that a stranger's newer one does not hide it.
    session = redis.call('GET', of_phone .. 'newest:' .. trier) or redis.call('GET', of_phone .. 'newest') or ''
end
local code = of_phone .. 'code:' .. session
local found = redis.call('HMGET', code, 'digest', 'tries', 'guesses', 'asker')
-- The owner of a code knows its session, or tries from the address that asked for it. All others are strangers, whose
-- failures are counted together and apart: guesses lock strangers out, and never the owner.
local owner = found[1] and (named or found[4] == trier)
local counter, tries = of_phone, found[3]
if owner then
    counter, tries = of_phone .. 'of:' .. found[4] .. ':', found[2]
end
local locked = redis.call('PTTL', counter .. 'lock')
if locked > 0 then
    return {2, locked}
end
if not found[1] then
    return {3, 0}
end
if tonumber(tries) >= tonumber(ARGV[3]) then
    return {1, 0}
end
redis.call('HINCRBY', code, owner and 'tries' or 'guesses', 1)
-- The comparison takes the same time wherever the digests differ.
local difference = #tried == #found[1] and 0 or 1
for at = 1, math.min(#tried, #found[1]) do
    difference = bit.bor(difference, bit.bxor(tried:byte(at), found[1]:byte(at)))
end
if difference == 0 then
    redis.call('DEL', code, counter .. 'failures')
    for _, newest in ipairs({of_phone .. 'newest', of_phone .. 'newest:' .. found[4]}) do
        if redis.call('GET', newest) == session then
            redis.call('DEL', newest)
        end
    end
    return {0, 0}
end
local failures = redis.call('INCR', counter .. 'failures')
if failures == 1 then
    redis.call('EXPIRE', counter .. 'failures', ARGV[4])
end
-- These locks, in seconds, are the wallet contract's (section 2).
local lock = failures >= 7 and 600 or failures == 5 and 300 or failures == 3 and 120 or 0
if lock > 0 then
    redis.call('SET', counter .. 'lock', 1, 'EX', lock)
end
return {1, 0}
