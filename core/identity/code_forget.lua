-- Take back a code that could not be sent, and do not count the send. KEYS[1]: the prefix of the phone's names. ARGV:
-- session.
local of_phone, session = KEYS[1], ARGV[1]
local asker = redis.call('HGET', of_phone .. 'code:' .. session, 'asker')
if redis.call('DEL', of_phone .. 'code:' .. session) == 0 then
    return 0
end
for _, newest in ipairs({of_phone .. 'newest', of_phone .. 'newest:' .. (asker or '')}) do
    if redis.call('GET', newest) == session then
        redis.call('DEL', newest)
    end
end
if tonumber(redis.call('GET', of_phone .. 'sent') or '0') > 0 then
    redis.call('DECR', of_phone .. 'sent')
end
return 1
