-- Write one batch of one partition, whole or not at all: tiles, dictionary, dedupe, books and offset together.
--
-- Every value is absolute, so the same call twice leaves what one call leaves. Lua has no rollback: all checks come
-- before the first write, and the first write is one that Redis refuses when it is out of memory.
--
-- KEYS[1]  the header; all other keys begin with the same hash tag
-- ARGV     1 prefix, 2 epoch, 3 owner, 4 expected offset, 5 next offset, 6 '1' if the expected offset is the state's first,
--          7 watermark in ms or '', 8 most members of an index, 9 most keys removed by this call,
--          then n, n x (header field, value)
--          then n, first slot, n x item_id
--          then n, n x redrive header
--          then n, n x (minute, its expiry in ms, its length in bytes so far, bytes to append)
--          then n, n x (resolution_ms, m, m x ('bucket:chunk', tile, its expiry in ms))
--          then n, n x (day, when the last of its orders expires in ms, m, m x (hash of an order's id, its state))
--          then n, n x (name of a load of history, its highest sequence judged)
-- Returns  'APPLIED', 'ALREADY', 'FENCED' or 'GAP'.

local CHUNK_ITEMS, GROUP_CHUNKS, MAX_UNPACK = 1024, 256, 2000
local header, prefix, next_offset = KEYS[1], ARGV[1], ARGV[5]
local retained = prefix .. ':r'

local stored = redis.call('HMGET', header, 'epoch', 'owner', 'next_offset', 'items', 'index_floor')
local epoch = tonumber(stored[1]) or 0
if epoch > tonumber(ARGV[2]) then
  return 'FENCED'
elseif epoch < tonumber(ARGV[2]) then
  return 'GAP'
elseif stored[2] ~= ARGV[3] then
  return 'FENCED'
elseif stored[3] == next_offset then
  return 'ALREADY'
elseif stored[3] ~= ARGV[4] and (stored[3] or ARGV[6] ~= '1') then
  return 'GAP'
end

-- First walk: find the sections and check all that could make a write fail.
local function damaged(text)
  return redis.error_reply('DAMAGED ' .. text)
end

local function other_type(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found ~= wanted and found ~= 'none'
end

local fields = 10
local items = fields + 1 + 2 * tonumber(ARGV[fields])
local num_items, first_slot = tonumber(ARGV[items]), tonumber(ARGV[items + 1])
local redrives = items + 2 + num_items
local num_redrives = tonumber(ARGV[redrives])
local minutes = redrives + 1 + num_redrives
local num_minutes = tonumber(ARGV[minutes])
local resolutions = minutes + 1 + 4 * num_minutes
local num_resolutions = tonumber(ARGV[resolutions])

if (tonumber(stored[4]) or 0) ~= first_slot then
  return damaged('the dictionary has ' .. (stored[4] or '0') .. ' items, expected ' .. first_slot)
end
if other_type(prefix .. ':v', 'set') then
  return damaged(prefix .. ':v is not a set')
end
if other_type(retained, 'zset') then
  return damaged(retained .. ' is not a sorted set')
end
for chunk = math.floor(first_slot / CHUNK_ITEMS), math.floor((first_slot + num_items) / CHUNK_ITEMS) do
  if other_type(prefix .. ':d:' .. chunk, 'hash') then
    return damaged(prefix .. ':d:' .. chunk .. ' is not a hash')
  end
end
for i = minutes + 1, minutes + 4 * num_minutes, 4 do
  local key = prefix .. ':u:' .. ARGV[i]
  if other_type(key, 'string') then
    return damaged(key .. ' is not a string')
  end
  local length = redis.call('STRLEN', key)
  if length ~= tonumber(ARGV[i + 2]) then
    return damaged(key .. ' has ' .. length .. ' bytes, expected ' .. ARGV[i + 2])
  end
end
local place = resolutions + 1
for _ = 1, num_resolutions do
  local index = prefix .. ':x:' .. ARGV[place]
  if other_type(index, 'zset') then
    return damaged(index .. ' is not a sorted set')
  end
  for i = place + 2, place - 1 + 3 * tonumber(ARGV[place + 1]), 3 do
    if not string.find(ARGV[i], '^%d+:%d+$') or not tonumber(ARGV[i + 2]) then
      return damaged('no tile is named ' .. ARGV[i])
    end
  end
  place = place + 2 + 3 * tonumber(ARGV[place + 1])
end
local days = place
place = days + 1
for _ = 1, tonumber(ARGV[days]) do
  if other_type(prefix .. ':o:' .. ARGV[place], 'hash') then
    return damaged(prefix .. ':o:' .. ARGV[place] .. ' is not a hash')
  end
  if not tonumber(ARGV[place + 1]) then
    return damaged('no watermark is ' .. ARGV[place + 1])
  end
  place = place + 3 + 2 * tonumber(ARGV[place + 2])
end
local loads = place
if other_type(prefix .. ':l', 'hash') then
  return damaged(prefix .. ':l is not a hash')
end
place = loads + 1 + 2 * tonumber(ARGV[loads])
if place ~= #ARGV + 1 then
  return damaged('the call has ' .. #ARGV .. ' arguments, expected ' .. (place - 1))
end

-- Second walk: write.
for i = fields + 1, items - 1, 2 do
  redis.call('HSET', header, ARGV[i], ARGV[i + 1])
end
redis.call('HSET', header, 'next_offset', next_offset)
for i = 0, num_items - 1 do
  local slot = first_slot + i
  redis.call('HSET', prefix .. ':d:' .. math.floor(slot / CHUNK_ITEMS), slot % CHUNK_ITEMS, ARGV[items + 2 + i])
end
for i = redrives + 1, redrives + num_redrives do
  redis.call('SADD', prefix .. ':v', ARGV[i])
end
for i = loads + 1, #ARGV - 1, 2 do
  redis.call('HSET', prefix .. ':l', ARGV[i], ARGV[i + 1])
end
for i = minutes + 1, minutes + 4 * num_minutes, 4 do
  redis.call('SETRANGE', prefix .. ':u:' .. ARGV[i], ARGV[i + 2], ARGV[i + 3])
  redis.call('ZADD', retained, ARGV[i + 1], 'u:' .. ARGV[i])
end

local function write_tiles(at, count, resolution, index)
  local tile, scored, last = prefix .. ':w:' .. resolution .. ':', {}, nil
  for i = at, at + 3 * count - 3, 3 do
    local name = ARGV[i]
    redis.call('SET', tile .. name, ARGV[i + 1])
    scored[#scored + 1] = next_offset
    scored[#scored + 1] = name
    if #scored >= MAX_UNPACK then
      redis.call('ZADD', index, unpack(scored))
      scored = {}
    end
    local bucket, chunk = string.match(name, '^(%d+):(%d+)$')
    local group = bucket .. ':' .. math.floor(chunk / GROUP_CHUNKS)
    if group ~= last then
      redis.call('ZADD', retained, ARGV[i + 2], resolution .. ':' .. group)
      last = group
    end
  end
  if #scored > 0 then
    redis.call('ZADD', index, unpack(scored))
  end
end

local floor = tonumber(stored[5]) or 0
place = resolutions + 1
for _ = 1, num_resolutions do
  local resolution, count = ARGV[place], tonumber(ARGV[place + 1])
  local index = prefix .. ':x:' .. resolution
  write_tiles(place + 2, count, resolution, index)
  local excess = redis.call('ZCARD', index) - tonumber(ARGV[8])
  if excess > 0 then
    local newest = redis.call('ZRANGE', index, excess - 1, excess - 1, 'WITHSCORES')
    redis.call('ZREMRANGEBYRANK', index, 0, excess - 1)
    floor = math.max(floor, tonumber(newest[2]))
  end
  place = place + 2 + 3 * count
end
redis.call('HSET', header, 'index_floor', string.format('%.0f', floor))
place = days + 1
for _ = 1, tonumber(ARGV[days]) do
  local last = place + 2 + 2 * tonumber(ARGV[place + 2])
  for i = place + 3, last, MAX_UNPACK do
    redis.call('HSET', prefix .. ':o:' .. ARGV[place], unpack(ARGV, i, math.min(i + MAX_UNPACK - 1, last)))
  end
  redis.call('ZADD', retained, 'GT', ARGV[place + 1], 'o:' .. ARGV[place])
  place = last + 1
end

-- Last: free what has left retention, a bounded number of keys, in the order of its expiry.
local budget = tonumber(ARGV[9])
if ARGV[7] ~= '' then
  local chunks = math.ceil((first_slot + num_items) / CHUNK_ITEMS)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', retained, '-inf', ARGV[7], 'LIMIT', 0, budget)) do
    if budget <= 0 then
      break
    end
    local resolution, bucket, group = string.match(member, '^(%d+):(%d+):(%d+)$')
    if resolution then
      local first = group * GROUP_CHUNKS
      for chunk = first, math.min(first + GROUP_CHUNKS, chunks) - 1 do
        local name = bucket .. ':' .. chunk
        redis.call('UNLINK', prefix .. ':w:' .. resolution .. ':' .. name)
        redis.call('ZREM', prefix .. ':x:' .. resolution, name)
        budget = budget - 1
      end
    else
      redis.call('UNLINK', prefix .. ':' .. member)
      budget = budget - 1
    end
    redis.call('ZREM', retained, member)
  end
end
return 'APPLIED'
