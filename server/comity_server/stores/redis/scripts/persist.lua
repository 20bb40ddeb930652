-- Writes down some of what the log of a namespace has besides versions: checkpoints, what forks hold, outcomes.
--
-- KEYS  1 meta   2 the hash that it belongs in
-- ARGV  1 generation  2 the token of claim.lua   3 the number of this step since then, from 1
--       4 how many fields are set; then so many names and values; then the names of fields that go
--
-- Answers 1, or 0 if another server does this now, or Redis has lost a step before this one: a failover may lose the
-- newest of what was done. To be told twice does nothing.
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
local stands = redis.call('HMGET', KEYS[1], 'generation', 'mark', 'steps')
local before = tonumber(ARGV[3]) - tonumber(stands[3] or '0')
if stands[1] ~= ARGV[1] or stands[2] ~= ARGV[2] or (before ~= 1 and before ~= 0) then
  return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'marked', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), 'steps', ARGV[3])
local place = 5
for _ = 1, tonumber(ARGV[4]) do
  redis.call('HSET', KEYS[2], ARGV[place], ARGV[place + 1])
  place = place + 2
end
while place <= #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[place])
  place = place + 1
end
return 1
