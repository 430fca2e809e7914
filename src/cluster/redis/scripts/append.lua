-- Appends what was written, if the journal's newest is the one that the caller takes it for.
-- ARGV  9 the number of that, then by turns: a number and the event
if not epoch then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
local newest = redis.call('HGET', KEYS[1], 'chat') or ARGV[9]
local is_done = #ARGV == 9 or newest == ARGV[9]
if is_done then
  for index = 10, #ARGV, 2 do
    local chat = { number = tonumber(ARGV[index]), previous = tonumber(newest), event = ARGV[index + 1] }
    record('chat', nil, { chat = chat })
    newest = ARGV[index]
  end
  redis.call('HSET', KEYS[1], 'chat', newest)
end
settle()
return { is_done and 'ok' or 'moved', newest, news() }
