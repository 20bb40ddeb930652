-- Has a name that no namespace has go on from a revision at least. Servers that know the name look anew.
--
-- KEYS  1 meta
-- ARGV  1 the revision   2 the time of the newest commit   3 an epoch
--
-- Answers 1, or 0 if there is such a namespace.
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'exists', 'time')
if stands[3] == '1' then
  return 0
end
local revision, time = ARGV[1], ARGV[2]
if tonumber(stands[2] or '0') > tonumber(revision) then
  revision = stands[2]
end
if tonumber(stands[4] or '0') > tonumber(time) then
  time = stands[4]
end
redis.call('HSET', KEYS[1], 'generation', stands[1] or '1', 'revision', revision, 'sub', '0', 'epoch', ARGV[3],
           'exists', '0', 'time', time, 'base', revision, 'floor', revision)
return 1
