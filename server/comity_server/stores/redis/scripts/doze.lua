-- Has servers look into namespaces later, where nobody has said since that they are to look earlier.
--
-- KEYS  1 expiries
-- ARGV  for each namespace its name, when they are to look as the caller knows it (see woken.lua), and when instead, or
--       '' if never
--
-- Answers the names of those of which it is not known otherwise by now.
local answer = {}
for place = 1, #ARGV, 3 do
  local name, at = ARGV[place], ARGV[place + 2]
  local known = redis.call('ZSCORE', KEYS[1], name)
  if known and tonumber(known) == tonumber(ARGV[place + 1]) then
    if at == '' then
      redis.call('ZREM', KEYS[1], name)
    else
      redis.call('ZADD', KEYS[1], at, name)
    end
    answer[#answer + 1] = name
  end
end
return answer
