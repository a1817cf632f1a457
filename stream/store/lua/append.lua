-- Append the next versions of one partition of a shop's table, whole or not at all, with the offset; then free what
-- nobody asks for any more.
--
-- The newest of a key is the one with the latest `as of`, ties by offset. It stays. Another one may leave once the horizon
-- has passed the time from which it was superseded; a tombstone leaves too, after all that it supersedes. One that is
-- superseded by a record from before its own time was in force until that record came.
--
-- All checks come before the first write, which is one that Redis refuses when it is out of memory.
--
-- KEYS     1 header, 2 stream, 3 hash of the newest, 4 sorted set of what leaves
-- ARGV     1 epoch, 2 owner, 3 expected offset or '', 4 next offset, 5 second half of the entries' ids,
--          6 horizon in ms, 7 most entries removed by this call, 8 how many of them before the horizon has passed,
--          then n, n x (header field, value)
--          then (kind: v, t or d for value, tombstone, dead letter; offset, as of in ms, timestamp in ms, key, value) ...
-- Returns  {'APPLIED' or 'ALREADY', header field, value, ...}, {'FENCED'} or {'GAP'}.

local header, log, newest, leaving = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local next_offset = ARGV[4]
local first = 10 + 2 * tonumber(ARGV[9])
local num_args = #ARGV

local stored = redis.call('HMGET', header, 'epoch', 'owner', 'next_offset')
local epoch = tonumber(stored[1]) or 0
local function with_header(answer)
  local reply = redis.call('HGETALL', header)
  table.insert(reply, 1, answer)
  return reply
end
if epoch > tonumber(ARGV[1]) then
  return {'FENCED'}
elseif epoch < tonumber(ARGV[1]) then
  return {'GAP'}
elseif stored[2] ~= ARGV[2] then
  return {'FENCED'}
elseif stored[3] == next_offset and stored[3] ~= ARGV[3] then
  return with_header('ALREADY')
elseif (stored[3] or '') ~= ARGV[3] then
  return {'GAP'}
end

local function damaged(text)
  return redis.error_reply('DAMAGED ' .. text)
end
for i, wanted in ipairs({'hash', 'stream', 'hash', 'zset'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= wanted and found ~= 'none' then
    return damaged(KEYS[i] .. ' is a ' .. found .. ', expected a ' .. wanted)
  end
end
if (num_args - first + 1) % 6 ~= 0 then
  return damaged('the call has ' .. num_args .. ' arguments')
end
local before = tonumber(ARGV[3]) or -1
for i = first, num_args, 6 do
  local offset = tonumber(ARGV[i + 1])
  if not offset or offset < before or offset >= tonumber(next_offset) then
    return damaged('offset ' .. ARGV[i + 1] .. ' comes after ' .. before .. ' and before ' .. next_offset)
  end
  before = offset + 1
end
if stored[3] then
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if last and tonumber(string.match(last[1], '^%d+')) >= tonumber(ARGV[3]) then
    return damaged(log .. ' holds ' .. last[1] .. ', the next offset is ' .. ARGV[3])
  end
end

-- From here on: write.
for i = 10, first - 1, 2 do
  redis.call('HSET', header, ARGV[i], ARGV[i + 1])
end
redis.call('HSET', header, 'next_offset', next_offset)
if not stored[3] then
  redis.call('UNLINK', log, newest, leaving)
end

local function leaves(offset, from_ms)
  redis.call('ZADD', leaving, from_ms, offset)
end

local function supersede(kind, offset, as_of_ms, timestamp_ms, key)
  local known_ms, known = string.match(redis.call('HGET', newest, key) or '', '^(%d+):(%d+)$')
  if known and tonumber(known_ms) > tonumber(as_of_ms) then
    leaves(offset, known_ms)
    return
  end
  if known then
    leaves(known, string.format('%.0f', math.max(as_of_ms, timestamp_ms)))
  end
  if kind == 't' then
    leaves(offset, string.format('%.0f', as_of_ms + 1))
  end
  redis.call('HSET', newest, key, as_of_ms .. ':' .. offset)
end

for i = first, num_args, 6 do
  local kind, offset, as_of_ms, timestamp_ms, key, value = unpack(ARGV, i, i + 5)
  local id = offset .. '-' .. ARGV[5]
  if kind == 'v' then
    redis.call('XADD', log, id, 'k', key, 't', timestamp_ms, 'v', value)
  elseif kind == 't' then
    redis.call('XADD', log, id, 'k', key, 't', timestamp_ms)
  else
    redis.call('XADD', log, id, 'k', key, 't', timestamp_ms, 'd', '')
  end
  if kind == 'd' then
    leaves(offset, as_of_ms)
  else
    supersede(kind, offset, as_of_ms, timestamp_ms, key)
  end
end

-- What leaves: the bounded number that the horizon has passed, in the order of its time, then what must leave early.
local function remove(offset)
  for _, entry in ipairs(redis.call('XRANGE', log, offset, offset)) do
    redis.call('XDEL', log, entry[1])
    local key = entry[2][2]
    if string.match(redis.call('HGET', newest, key) or '', '^%d+:(%d+)$') == offset then
      redis.call('HDEL', newest, key)
    end
  end
  redis.call('ZREM', leaving, offset)
end

local budget = tonumber(ARGV[7])
local passed = redis.call('ZRANGEBYSCORE', leaving, '-inf', ARGV[6], 'LIMIT', 0, budget)
for _, offset in ipairs(passed) do
  remove(offset)
end
local early = math.min(budget - #passed, tonumber(ARGV[8]))
if early > 0 then
  local soonest = redis.call('ZRANGE', leaving, 0, early - 1, 'WITHSCORES')
  for i = 1, #soonest, 2 do
    remove(soonest[i])
  end
  if #soonest > 0 then
    local dropped = tonumber(redis.call('HGET', header, 'dropped')) or 0
    redis.call('HSET', header, 'dropped', string.format('%.0f', dropped + #soonest / 2))
    redis.call('HSET', header, 'dropped_until_ms', string.format('%.0f', tonumber(soonest[#soonest])))
  end
end
redis.call('HSET', header, 'versions', redis.call('XLEN', log))
return with_header('APPLIED')
