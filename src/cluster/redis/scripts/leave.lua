-- ARGV  9 user, 10 record of why, 11 session and 12 record of the node's numbers, those it had before included: whose
--       member it must be, or empty
local member = get(ARGV[9])
if not member then return { 'none' } end
if ARGV[11] ~= '' and (ARGV[11] ~= member.session or not is_among(member.node, ARGV[12])) then return { 'none' } end
remove(member, unpack_record(ARGV[10]))
settle()
return { 'ok', pack_record(member), news() }
