-- ARGV  9 the node that is gone, 10 how many of its members to remove at most
local node, left = tonumber(ARGV[9]), tonumber(ARGV[10])
local removed = 0
for _, bytes in ipairs(redis.call('HVALS', KEYS[2])) do
  if removed == left then break end
  local member = unpack_record(bytes)
  if member.node == node then
    remove(member, { reason = 'timeout' })
    removed = removed + 1
  end
end
if removed > 0 then settle() end
return { 'ok', removed }
