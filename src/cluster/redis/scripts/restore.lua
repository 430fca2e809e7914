-- Makes this node's members in the channel be those given: one who is missing is added, one who is another's by now is
-- left alone, and one who is not among them any more is removed.
-- ARGV  9 the node, 10 record of the numbers that the node had before, 11 and on: records of its members
local mine = { [tonumber(ARGV[9])] = true }
for _, number in ipairs(unpack_record(ARGV[10]).numbers) do mine[number] = true end
local given = {}
for index = 11, #ARGV do
  local member = unpack_record(ARGV[index])
  given[member.user.id] = member.session
  local there = get(member.user.id)
  if there then
    if there.session == member.session and mine[there.node] and there.node ~= tonumber(ARGV[9]) then
      there.node = tonumber(ARGV[9])
      put(there)
    end
  elseif redis.call('HEXISTS', KEYS[3], member.stream) == 0 then
    if member.server_muted then redis.call('SADD', KEYS[5], member.user.id) end
    member.server_muted = redis.call('SISMEMBER', KEYS[5], member.user.id) == 1
    member.node = tonumber(ARGV[9])
    put(member)
    record('joined', member, {})
  end
end
for _, bytes in ipairs(redis.call('HVALS', KEYS[2])) do
  local member = unpack_record(bytes)
  if mine[member.node] and given[member.user.id] ~= member.session then remove(member, { reason = 'timeout' }) end
end
settle()
return { 'ok', news() }
