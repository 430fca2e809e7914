return { tonumber(redis.call('HGET', KEYS[6], 'epoch') or 0), redis.call('HGETALL', KEYS[2]) }
