-- A place among those who publish, taken or given back. Nobody is told: what is published is heard of otherwise.
-- ARGV  9 user, 10 session, 11 record of the node's numbers, those it had before included,
--       12 how many may publish at once, or empty to give the place back
local member = get(ARGV[9])
if not member or ARGV[10] ~= member.session or not is_among(member.node, ARGV[11]) then return { 'none' } end
local wants = ARGV[12] ~= ''
if wants and not member.publishes then
  local others = 0
  for _, bytes in ipairs(redis.call('HVALS', KEYS[2])) do
    if unpack_record(bytes).publishes then others = others + 1 end
  end
  if others >= tonumber(ARGV[12]) then return { 'full' } end
end
if wants ~= (member.publishes or false) then
  member.publishes = wants
  put(member)
end
return { 'ok' }
