-- KEYS  1 as in session_put
-- ARGV  1 until when, as there; 2 node, 3 numbers it had before as a record
local node = redis.call('HGET', KEYS[1], 'node')
local is_mine = node == ARGV[2]
for _, number in ipairs(cmsgpack.unpack(string.sub(ARGV[3], 2)).numbers) do
  is_mine = is_mine or tonumber(node) == number
end
if not is_mine then return { 'none' } end
redis.call('DEL', KEYS[1])
return { 'ok' }
