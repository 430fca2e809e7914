-- KEYS  1 as in session_put
-- ARGV  1 until when, as there; 2 node
if redis.call('HGET', KEYS[1], 'node') ~= ARGV[2] then return { 'none' } end
redis.call('DEL', KEYS[1])
return { 'ok' }
