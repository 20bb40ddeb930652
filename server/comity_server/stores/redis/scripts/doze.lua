-- Has servers look into a namespace later, if nobody has said since that they are to look earlier.
--
-- KEYS  1 expiries
-- ARGV  1 the name   2 when they are to look as the caller knows it: see woken.lua   3 when instead, or '' if never
--
-- Answers 1, or 0 if it is known otherwise by now.
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not at or tonumber(at) ~= tonumber(ARGV[2]) then
  return 0
end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
