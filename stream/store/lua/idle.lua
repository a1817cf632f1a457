-- Declare a partition idle: raise its idle frontier under the epoch, and touch nothing else.
--
-- KEYS[1]  the header
-- ARGV     1 epoch, 2 owner, 3 the offset the caller stands at ('' before the first batch), 4 idle frontier in ms
-- Returns  'APPLIED', 'FENCED' or 'GAP'.

local stored = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'next_offset', 'idle_frontier_ms')
local epoch = tonumber(stored[1]) or 0
if epoch > tonumber(ARGV[1]) then
  return 'FENCED'
elseif epoch < tonumber(ARGV[1]) then
  return 'GAP'
elseif stored[2] ~= ARGV[2] then
  return 'FENCED'
elseif (stored[3] or '') ~= ARGV[3] then
  return 'GAP'
end
if not stored[4] or tonumber(ARGV[4]) > tonumber(stored[4]) then
  redis.call('HSET', KEYS[1], 'idle_frontier_ms', ARGV[4])
end
return 'APPLIED'
