-- Raise a number, never lower it.
--
-- KEYS[1]  the number
-- ARGV     1 what it is at least from now on
-- Returns  what it is.

local stored = tonumber(redis.call('GET', KEYS[1])) or 0
local raised = math.max(stored, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', raised))
return string.format('%.0f', raised)
