-- Makes the node's members in the channel be those given.
-- ARGV  9 the node, 10 record of the numbers that the node had before, 11 and on: records of its members
local node, mine, kept = tonumber(ARGV[9]), { [tonumber(ARGV[9])] = true }, {}
for _, number in ipairs(unpack_record(ARGV[10]).numbers) do mine[number] = true end
local given = {}
-- A session that left and came back meanwhile has another stream, and is another member.
local function identity(member) return member.session .. ':' .. member.stream end
for index = 11, #ARGV do
  given[index - 10] = unpack_record(ARGV[index])
  kept[identity(given[index - 10])] = true
end
-- Who is not among them any more leaves first: their streams and places are free then.
for _, bytes in ipairs(redis.call('HVALS', KEYS[2])) do
  local member = unpack_record(bytes)
  if mine[member.node] and not kept[identity(member)] then remove(member, { reason = 'left', by = member.user.id }) end
end
for _, member in ipairs(given) do
  local there = get(member.user.id)
  if not there then
    if redis.call('HEXISTS', KEYS[3], member.stream) == 0 then
      if member.server_muted then redis.call('SADD', KEYS[5], member.user.id) end
      member.server_muted = redis.call('SISMEMBER', KEYS[5], member.user.id) == 1
      member.node = node
      put(member)
      record('joined', member, { by = member.user.id })
      -- Whoever hears of a join takes the member for neither muted nor deafened.
      if member.muted or member.deafened or member.server_muted then
        record('voice', member, { by = member.user.id })
      end
    end
  elseif identity(there) == identity(member) and mine[there.node] then
    local is_changed = there.muted ~= member.muted or there.deafened ~= member.deafened
      or there.server_muted ~= member.server_muted
    there.muted, there.deafened, there.server_muted = member.muted, member.deafened, member.server_muted
    if is_changed then redis.call(there.server_muted and 'SADD' or 'SREM', KEYS[5], member.user.id) end
    there.publishes = member.publishes
    there.node = node
    put(there)
    if is_changed then record('voice', there, { by = member.user.id }) end
  end
end
settle()
return { 'ok', news() }
