-- Store a new sign-in code of a phone. KEYS[1]: the prefix of the phone's names. ARGV: session, digest of the code, its
-- life in seconds, most sends, their window in seconds, and the asker (a digest of the address that asked for it).
-- Returns 0, or the milliseconds until a code may be sent.
local of_phone, session, asker = KEYS[1], ARGV[1], ARGV[6]
local sent = tonumber(redis.call('GET', of_phone .. 'sent') or '0')
if sent >= tonumber(ARGV[4]) then
    return math.max(1, redis.call('PTTL', of_phone .. 'sent'))
end
if redis.call('INCR', of_phone .. 'sent') == 1 then
    redis.call('EXPIRE', of_phone .. 'sent', ARGV[5])
end
redis.call('HSET', of_phone .. 'code:' .. session, 'digest', ARGV[2], 'asker', asker, 'tries', 0, 'guesses', 0)
redis.call('EXPIRE', of_phone .. 'code:' .. session, ARGV[3])
redis.call('SET', of_phone .. 'newest', session, 'EX', ARGV[3])
redis.call('SET', of_phone .. 'newest:' .. asker, session, 'EX', ARGV[3])
return 0
