-- Makes a server the one that looks into namespaces, where it is time to and no other one does.
--
-- KEYS  1 expiries
-- ARGV  1 the time, in µs   2 when another one looks, unless this one says when: see doze.lua
--       3... their names
--
-- Answers the names of those that it is to look into.
local answer = {}
for place = 3, #ARGV do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[place])
  if at and tonumber(at) <= tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[place])
    answer[#answer + 1] = ARGV[place]
  end
end
return answer
