-- Claim a partition: raise its epoch, so that every earlier owner is fenced, and return its header.
--
-- KEYS[1]  the header
-- ARGV     1 fingerprint of the settings, 2 the owner's name for this claim, 3 the topic's id or '' if unknown
-- Returns  {'CLAIMED', field, value, ...}, {'REFUSED', the stored fingerprint} or {'RECREATED', the stored topic id};
--          a refusal writes nothing.

local stored = redis.call('HMGET', KEYS[1], 'fingerprint', 'next_offset', 'epoch', 'topic_id')
if stored[2] and stored[1] ~= ARGV[1] then
  return {'REFUSED', stored[1] or ''}
end
if stored[2] and ARGV[3] ~= '' and stored[4] and stored[4] ~= ARGV[3] then
  return {'RECREATED', stored[4]}
end
local epoch = string.format('%.0f', (tonumber(stored[3]) or 0) + 1)
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[2], 'fingerprint', ARGV[1])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'topic_id', ARGV[3])
end
local reply = redis.call('HGETALL', KEYS[1])
table.insert(reply, 1, 'CLAIMED')
return reply
