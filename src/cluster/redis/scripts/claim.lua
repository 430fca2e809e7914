-- The member goes on, through another node.
-- ARGV  9 user, 10 session, 11 the node that had it, 12 the node that has it from now on, 13 how voice travels there
local member = get(ARGV[9])
if not member or ARGV[10] ~= member.session then return { 'none' } end
if member.node ~= tonumber(ARGV[11]) and member.node ~= tonumber(ARGV[12]) then return { 'none' } end
member.node, member.media = tonumber(ARGV[12]), ARGV[13]
put(member)
return { 'ok', pack_record(member), news() }
