-- Moves a part of the log into the base: what of it can still be read is kept there, and the entries are trimmed.
--
-- KEYS  1 meta   2 log   3 base
-- ARGV  1 generation  2 revision  3 sub  4 last: of an entry that the caller has read, and all that came before it
--       5 the least revision that the base may reach to, and  6 the one that it reaches to afterwards, beyond which it
--         must not reach
--       7 the token of claim.lua   8 the number of this step since then: see persist.lua, whose steps count too
--       9 the id before which entries are trimmed, or 0-0 for none
--       10 whether tombstones may be among the fields that go: whoever has read what was deleted and not yet that it
--         was has to begin anew
--       11 how many bytes the history has then
--       12 how many fields of the base are set; then so many names and values; then the names of fields that go
--
-- Answers 1, or 0 if another server has done more or does this now, or Redis has lost a step before this one. Then of
-- the fields only those go that the base reaches to: they are not set again, and what one server cannot read any more no
-- other one can. Or -1, and nothing was done, if the log does not tell (any more) that it has the entry: Redis may have
-- lost what made the caller drop something.
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
local stands = redis.call('HMGET', KEYS[1], 'generation', 'base', 'mark', 'steps', 'revision', 'sub', 'last')
if stands[1] ~= ARGV[1] then
  return 0
end
if stands[5] ~= ARGV[2] or stands[6] ~= ARGV[3] or (stands[7] or '') ~= ARGV[4] then
  local after = redis.call('XRANGE', KEYS[2], '(' .. ARGV[2] .. '-' .. ARGV[3], '+', 'COUNT', 1)[1]
  local fields = after and after[2] or {}
  local follows = false
  for place = 1, #fields, 2 do
    follows = follows or (fields[place] == 'p' and fields[place + 1] == ARGV[4])
  end
  if not follows then
    return -1
  end
end
local base = tonumber(stands[2] or '0')
local before = tonumber(ARGV[8]) - tonumber(stands[4] or '0')
local mine = base >= tonumber(ARGV[5]) and base <= tonumber(ARGV[6]) and stands[3] == ARGV[7] and
             (before == 1 or before == 0)
if ARGV[10] == '1' then
  redis.call('HINCRBY', KEYS[1], 'cleared', 1)
end
local place = 13
for _ = 1, tonumber(ARGV[12]) do
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
redis.call('HSET', KEYS[1], 'marked', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), 'steps', ARGV[8])
if ARGV[9] ~= '0-0' then
  redis.call('HSET', KEYS[1], 'base', ARGV[6], 'trimmed', ARGV[9], 'history', ARGV[11])
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[9])
end
return 1
