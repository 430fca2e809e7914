-- In front of every script about the nodes.
--
-- KEYS  1 live: sorted set of numbers by the end of their leases   2 records: hash from number to record
--       3 states: hash from number to state                        4 names: hash from number to node id
--       5 ids: hash from node id to number and start               6 meta: hash of epoch and next number
--       7 dead: sorted set of numbers by when they died             8 sweeping: sorted set of numbers by until when
--         whoever sweeps them has time
-- ARGV  1 PUBLISH or SPUBLISH, and 2 to which channel; each script's own from 3 on
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function changed()
  local epoch = redis.call('HINCRBY', KEYS[6], 'epoch', 1)
  redis.call(ARGV[1], ARGV[2], epoch)
  return epoch
end

local function bury(number)
  local name = redis.call('HGET', KEYS[4], number)
  if name then
    local held = redis.call('HGET', KEYS[5], name)
    if held and string.match(held, '^(%d+)|') == tostring(number) then redis.call('HDEL', KEYS[5], name) end
  end
  redis.call('ZREM', KEYS[1], number)
  redis.call('HDEL', KEYS[2], number)
  redis.call('HDEL', KEYS[3], number)
  redis.call('HDEL', KEYS[4], number)
  redis.call('ZADD', KEYS[7], now, number)
end

