-- The member goes on, through another node.
-- ARGV  9 user, 10 session, 11 the node that has it from now on
local member = get(ARGV[9])
if not member or ARGV[10] ~= member.session then return { 'none' } end
member.node = tonumber(ARGV[11])
put(member)
return { 'ok', epoch, offset, redis.call('HVALS', KEYS[2]), missed(ARGV[7], tonumber(ARGV[8])) }
