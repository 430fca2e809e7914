if not epoch then return { 'none' } end
return { 'ok', epoch, offset, redis.call('HVALS', KEYS[2]), missed(ARGV[7], tonumber(ARGV[8])) }
