-- Frees long entries that the log has no more.
--
-- KEYS  1 meta   2 the hash of such entries   3... where they are staged
-- ARGV  1 generation  2 revision  3 sub: the place before which the log was trimmed
--       4... their tokens
--
-- Answers 1, or 0 if Redis has lost that, and needs them again.
local stands = redis.call('HMGET', KEYS[1], 'generation', 'trimmed')
local revision, sub = string.match(stands[2] or '0-0', '^(%d+)-(%d+)$')
local beyond = tonumber(revision) - tonumber(ARGV[2])
if stands[1] ~= ARGV[1] or beyond < 0 or (beyond == 0 and tonumber(sub) < tonumber(ARGV[3])) then
  return 0
end
for place = 3, #KEYS do
  redis.call('UNLINK', KEYS[place])
  redis.call('HDEL', KEYS[2], ARGV[place + 1])
end
return 1
