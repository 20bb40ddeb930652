-- Moves a part of the log into the base: what of it can still be read is kept there, and the entries are trimmed.
--
-- KEYS  1 meta   2 log   3 base
-- ARGV  1 generation  2 the least revision that the base may reach to, and  3 the one that it reaches to afterwards,
--         beyond which it must not reach
--       4 the token of claim.lua   5 the id before which entries are trimmed, or 0-0 for none
--       6 whether tombstones may be among the fields that go: whoever has read what was deleted and not yet that it
--         was has to begin anew
--       7 how many bytes the history has then
--       8 how many fields of the base are set; then so many names and values; then the names of fields that go
--
-- Answers 1, or 0 if another server has done more or does this now. Then of the fields only those go that the base
-- reaches to: they are not set again, and what one server cannot read any more no other one can.
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
local stands = redis.call('HMGET', KEYS[1], 'generation', 'base', 'mark')
if stands[1] ~= ARGV[1] then
  return 0
end
local base = tonumber(stands[2] or '0')
local mine = base >= tonumber(ARGV[2]) and base <= tonumber(ARGV[3]) and stands[3] == ARGV[4]
if ARGV[6] == '1' then
  redis.call('HINCRBY', KEYS[1], 'cleared', 1)
end
local place = 9
for _ = 1, tonumber(ARGV[8]) do
  if mine then
    redis.call('HSET', KEYS[3], ARGV[place], ARGV[place + 1])
  end
  place = place + 2
end
while place <= #ARGV do
  if mine or tonumber(string.match(ARGV[place], '%z(%d+)$')) <= base then
    redis.call('HDEL', KEYS[3], ARGV[place])
  end
  place = place + 1
end
if not mine then
  return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'marked', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
if ARGV[5] ~= '0-0' then
  redis.call('HSET', KEYS[1], 'base', ARGV[3], 'trimmed', ARGV[5], 'history', ARGV[7])
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5])
end
return 1
