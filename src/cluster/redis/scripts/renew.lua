-- ARGV  3 number, 4 the lease in ms, 5 record, 6 state, 7 '1' to end the leases that have run out
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) then return { 'unknown' } end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[3])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
local is_changed = redis.call('HGET', KEYS[3], ARGV[3]) ~= ARGV[6]
redis.call('HSET', KEYS[3], ARGV[3], ARGV[6])
local ended = 0
if ARGV[7] == '1' then
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)) do
    bury(number)
    ended = ended + 1
  end
end
local epoch = tonumber(redis.call('HGET', KEYS[6], 'epoch') or 0)
if is_changed or ended > 0 then epoch = changed() end
return { 'ok', now, epoch, ended }
