-- ARGV  9 user, 10 record of why, 11 session, 12 node, 13 stream: whose member it must be; each may be empty
local member = get(ARGV[9])
if not member then return { 'none' } end
if ARGV[11] ~= '' and ARGV[11] ~= member.session then return { 'none' } end
if ARGV[12] ~= '' and tonumber(ARGV[12]) ~= member.node then return { 'none' } end
if ARGV[13] ~= '' and tonumber(ARGV[13]) ~= member.stream then return { 'none' } end
remove(member, unpack_record(ARGV[10]))
settle()
return { 'ok', pack_record(member), news() }
