-- KEYS  1 as in session_put
-- ARGV  1 until when, as there; 2 the claiming node, 3 the token offered, 4 the tokens that hold from now on, 5
--       how long it is kept in ms
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return { 'late', now } end
local node = redis.call('HGET', KEYS[1], 'node')
if not node then return { 'gone' } end
if not string.find(redis.call('HGET', KEYS[1], 'tokens'), ARGV[3], 1, true) then return { 'wrong' } end
redis.call('HSET', KEYS[1], 'node', ARGV[2], 'tokens', ARGV[4])
local moves = redis.call('HINCRBY', KEYS[1], 'moves', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return { 'ok', tonumber(node), moves, redis.call('HGET', KEYS[1], 'body') }
