if redis.call('HLEN', KEYS[2]) == 0 then redis.call('DEL', KEYS[1], KEYS[3], KEYS[4], KEYS[5]) end
return { 'ok' }
