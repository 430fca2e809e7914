-- In front of every script about a channel. One script is one atomic step.
--
-- KEYS  1 meta: hash of epoch and offset            2 members: hash from user to record
--       3 streams: hash from stream to user         4 journal: list of entries, the newest last
--       5 muted: set of users muted by a moderator
-- ARGV  1 until when, by this server's clock in ms, the caller waits for the answer
--       2 the epoch of a journal that begins now    3 how many entries a journal keeps
--       4 how many seconds an empty channel is kept 5 PUBLISH or SPUBLISH, and 6 to which channel
--       7 and 8 the epoch and offset that the caller knows, or empty; each script's own from 9 on
if redis.replicate_commands then redis.replicate_commands() end
local VERSION = '\1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Nobody waits for it any more, and whoever asked was told that it did not happen.
if now > tonumber(ARGV[1]) then return { 'late', now } end

local epoch = redis.call('HGET', KEYS[1], 'epoch')
local offset = tonumber(redis.call('HGET', KEYS[1], 'offset') or 0)
local first = offset

local function unpack_record(bytes)
  return cmsgpack.unpack(string.sub(bytes, 2))
end

local function pack_record(record)
  return VERSION .. cmsgpack.pack(record)
end

-- Whether a node's number is one of those in a record.
local function is_among(node, record)
  for _, number in ipairs(unpack_record(record).numbers) do
    if number == node then return true end
  end
  return false
end

local function get(user)
  local bytes = redis.call('HGET', KEYS[2], user)
  return bytes and unpack_record(bytes)
end

local function put(member)
  redis.call('HSET', KEYS[2], member.user.id, pack_record(member))
  redis.call('HSET', KEYS[3], member.stream, member.user.id)
end

-- Appends an entry to the journal and tells everyone. `entry` holds what is particular to it.
local function record(kind, member, entry)
  if not epoch then
    epoch = ARGV[2]
    redis.call('HSET', KEYS[1], 'epoch', epoch)
  end
  offset = offset + 1
  redis.call('HSET', KEYS[1], 'offset', offset)
  entry.kind, entry.member, entry.epoch, entry.offset = kind, member, epoch, offset
  local bytes = pack_record(entry)
  redis.call('RPUSH', KEYS[4], bytes)
  redis.call('LTRIM', KEYS[4], -tonumber(ARGV[3]), -1)
  redis.call(ARGV[5], ARGV[6], bytes)
end

local function remove(member, entry)
  redis.call('HDEL', KEYS[2], member.user.id)
  redis.call('HDEL', KEYS[3], member.stream)
  record('left', member, entry)
end

-- An empty channel is forgotten after a while; a moderator's mute is not, it waits for somebody's return.
local function settle()
  if redis.call('HLEN', KEYS[2]) == 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
    redis.call('EXPIRE', KEYS[4], ARGV[4])
  else
    redis.call('PERSIST', KEYS[1])
    redis.call('PERSIST', KEYS[4])
  end
end

-- The entries after the place that the caller knows, or nothing when that cannot be said.
local function missed(known_epoch, known_offset)
  if not epoch or known_epoch ~= epoch then return nil end
  local count = offset - known_offset
  if count == 0 then return {} end
  if count < 0 or count > redis.call('LLEN', KEYS[4]) then return nil end
  return redis.call('LRANGE', KEYS[4], -count, -1)
end

-- { kind, epoch, offset, entries or members }: what happened since, or else how things are. Where no place is known,
-- what this script has recorded.
local function news()
  local entries
  if ARGV[7] == '' then
    entries = missed(epoch, first)
  else
    entries = missed(ARGV[7], tonumber(ARGV[8]))
  end
  if entries then return { 'entries', epoch, offset, entries } end
  return { 'state', epoch or '', offset, redis.call('HVALS', KEYS[2]) }
end

