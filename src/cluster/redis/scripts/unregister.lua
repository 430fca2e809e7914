-- ARGV  3 number
if redis.call('ZSCORE', KEYS[1], ARGV[3]) then
  bury(ARGV[3])
  changed()
end
return { 'ok' }
