-- ARGV  9 user, 10 session, 11 record of the node's numbers, those it had before included,
--       12 muted and 13 deafened: '1', '0' or empty to leave it as it is
local member = get(ARGV[9])
if not member or ARGV[10] ~= member.session or not is_among(member.node, ARGV[11]) then return { 'none' } end
local muted, deafened = member.muted, member.deafened
if ARGV[12] ~= '' then member.muted = ARGV[12] == '1' end
if ARGV[13] ~= '' then member.deafened = ARGV[13] == '1' end
if muted ~= member.muted or deafened ~= member.deafened then
  put(member)
  record('voice', member, { by = member.user.id })
end
return { 'ok', pack_record(member), news() }
