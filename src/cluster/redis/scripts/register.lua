-- ARGV  3 the number wanted, 0 for any, 4 the lease in ms, 5 record, 6 state, 7 node id, 8 when the process started,
--       9 where to begin with numbers when nothing is known, 10 the newest epoch known to the node
local MOST = 16777215
local wanted, started = tonumber(ARGV[3]), tonumber(ARGV[8])
local held = redis.call('HGET', KEYS[5], ARGV[7])
if held then
  local number, since = string.match(held, '^(%d+)|(%d+)$')
  if tonumber(since) > started then return { 'taken' } end
  -- An earlier process of this node, which is gone or has to go.
  if tonumber(since) < started then bury(number) end
end

local function is_free(number)
  if redis.call('ZSCORE', KEYS[7], number) then return false end
  if not redis.call('ZSCORE', KEYS[1], number) then return true end
  return held == number .. '|' .. ARGV[8]
end

local number = wanted
if number == 0 or not is_free(ARGV[3]) then
  number = tonumber(redis.call('HGET', KEYS[6], 'next') or ARGV[9])
  repeat number = number % MOST + 1 until is_free(tostring(number))
  redis.call('HSET', KEYS[6], 'next', number)
end
if tonumber(redis.call('HGET', KEYS[6], 'epoch') or 0) < tonumber(ARGV[10]) then
  redis.call('HSET', KEYS[6], 'epoch', ARGV[10])
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), number)
redis.call('HSET', KEYS[2], number, ARGV[5])
redis.call('HSET', KEYS[3], number, ARGV[6])
redis.call('HSET', KEYS[4], number, ARGV[7])
redis.call('HSET', KEYS[5], ARGV[7], number .. '|' .. ARGV[8])
return { 'ok', now, changed(), number }
