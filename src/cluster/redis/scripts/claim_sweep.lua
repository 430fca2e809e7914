-- ARGV  3 how long ago in ms a node must have died, 4 how long whoever sweeps it has time, in ms
for _, number in ipairs(redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now - tonumber(ARGV[3]))) do
  if tonumber(redis.call('ZSCORE', KEYS[8], number) or 0) < now then
    redis.call('ZADD', KEYS[8], now + tonumber(ARGV[4]), number)
    return tonumber(number)
  end
end
return 0
