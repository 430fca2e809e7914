-- KEYS  1 the session: hash of node, tokens (those that hold), body and moves (how often it was claimed)
-- ARGV  1 until when, by this server's clock in ms, the caller waits; 2 node, 3 numbers it had before as a record,
--       4 tokens, each followed by a space, 5 body, 6 how long it is kept in ms, 7 moves
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return { 'late', now } end
local node = redis.call('HGET', KEYS[1], 'node')
if node and node ~= ARGV[2] then
  local is_mine = false
  for _, number in ipairs(cmsgpack.unpack(string.sub(ARGV[3], 2)).numbers) do
    is_mine = is_mine or tonumber(node) == number
  end
  if not is_mine then return { 'claimed' } end
end
-- Taken up again since, perhaps through the same node.
if tonumber(redis.call('HGET', KEYS[1], 'moves') or 0) > tonumber(ARGV[7]) then return { 'stale' } end
redis.call('HSET', KEYS[1], 'node', ARGV[2], 'tokens', ARGV[4], 'body', ARGV[5], 'moves', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return { 'ok' }
