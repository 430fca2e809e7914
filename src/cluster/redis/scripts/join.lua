-- ARGV  9 the most members, 10 the member's record
local member = unpack_record(ARGV[10])
local before = get(member.user.id)
if not before and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[9]) then return { 'full' } end
if redis.call('HEXISTS', KEYS[3], member.stream) == 1 then return { 'stream' } end
if before then remove(before, { reason = 'replaced', by = member.user.id }) end
member.server_muted = redis.call('SISMEMBER', KEYS[5], member.user.id) == 1
put(member)
record('joined', member, { by = member.user.id })
settle()
return { 'ok', pack_record(member), news(), redis.call('HVALS', KEYS[2]) }
