-- Claim a partition: raise its epoch, so that every earlier owner is fenced, and return its header.
--
-- KEYS[1]  the header
-- ARGV     1 fingerprint of the settings, 2 the owner's name for this claim
-- Returns  {'CLAIMED', field, value, ...} or {'REFUSED', the stored fingerprint}; a refusal writes nothing.

local stored = redis.call('HMGET', KEYS[1], 'fingerprint', 'next_offset', 'epoch')
if stored[2] and stored[1] ~= ARGV[1] then
  return {'REFUSED', stored[1] or ''}
end
local epoch = string.format('%.0f', (tonumber(stored[3]) or 0) + 1)
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[2], 'fingerprint', ARGV[1])
local reply = redis.call('HGETALL', KEYS[1])
table.insert(reply, 1, 'CLAIMED')
return reply
