-- KEYS  1 as in session_put
-- ARGV  1 until when, as there; 2 the claiming node, 3 the token offered, 4 the token that holds from now on, 5 how
--       long it is kept in ms
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return { 'late', now } end
local KEPT = 8 * 65
local node = redis.call('HGET', KEYS[1], 'node')
if not node then return { 'gone' } end
local tokens = redis.call('HGET', KEYS[1], 'tokens')
local used = redis.call('HGET', KEYS[1], 'used') or ''
if not string.find(tokens, ARGV[3], 1, true) then
  return { string.find(used, ARGV[3], 1, true) and 'used' or 'wrong' }
end
redis.call('HSET', KEYS[1], 'node', ARGV[2], 'tokens', ARGV[4] .. ' ', 'used', string.sub(tokens .. used, 1, KEPT))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return { 'ok', tonumber(node), redis.call('HGET', KEYS[1], 'body') }
