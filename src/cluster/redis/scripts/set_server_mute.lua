-- ARGV  9 user, 10 '1' or '0', 11 by whom
local change = ARGV[10] == '1' and 'SADD' or 'SREM'
if redis.call(change, KEYS[5], ARGV[9]) == 0 then return { 'same' } end
local member = get(ARGV[9])
if not member then return { 'absent' } end
member.server_muted = ARGV[10] == '1'
put(member)
record('voice', member, { by = ARGV[11] })
return { 'ok', pack_record(member), news() }
