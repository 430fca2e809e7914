-- The member goes on, through another node.
-- ARGV  9 user, 10 session, 11 the node that has it from now on, 12 how often the session had moved by then
local member = get(ARGV[9])
if not member or ARGV[10] ~= member.session then return { 'none' } end
-- It has moved on since.
if tonumber(ARGV[12]) < (member.moves or 0) then return { 'none' } end
member.node, member.moves = tonumber(ARGV[11]), tonumber(ARGV[12])
put(member)
return { 'ok', epoch, offset, redis.call('HVALS', KEYS[2]), missed(ARGV[7], tonumber(ARGV[8])) }
