-- Has a namespace exist that was copied here, if all of it is there, and its name is where the caller thinks it stands.
--
-- KEYS  1 meta   2 the hash that says who copies it
--       3... pairs: where a part of it is, and where it goes; then the keys of long entries
-- ARGV  1 generation  2 revision  3 sub  4 epoch  5 last: as of append.lua
--       6 who the caller is   7 how many pairs there are; then for each how many fields or entries it has, and for each
--         long entry of how many pieces it is
--       8... names and values of meta, after these
--
-- Answers {1}; {0} if the name stands elsewhere or exists; {-1} if somebody else copies it now, or a part is gone.
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'sub', 'epoch', 'exists', 'last')
if (stands[1] or '1') ~= ARGV[1] or (stands[2] or '0') ~= ARGV[2] or (stands[3] or '0') ~= ARGV[3] or
   (stands[4] or ARGV[4]) ~= ARGV[4] or stands[5] == '1' or (stands[6] or '') ~= ARGV[5] then
  return {0}
end
if redis.call('HGET', KEYS[2], 'owner') ~= ARGV[6] then
  return {-1}
end
local pairs_ = tonumber(ARGV[7])
local function size(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'stream' then
    return redis.call('XLEN', key)
  elseif kind == 'hash' then
    return redis.call('HLEN', key)
  elseif kind == 'zset' then
    return redis.call('ZCARD', key)
  end
  return 0
end
for pair = 1, pairs_ do
  if size(KEYS[1 + 2 * pair]) ~= tonumber(ARGV[7 + pair]) then
    return {-1}
  end
end
local first = 3 + 2 * pairs_  -- key of a long entry
for place = first, #KEYS do
  if size(KEYS[place]) ~= tonumber(ARGV[8 + pairs_ + place - first]) then
    return {-1}
  end
end
-- The first write is all that may fail for want of memory.
redis.call('HSET', KEYS[1], unpack(ARGV, 8 + pairs_ + #KEYS - first + 1))
for pair = 1, pairs_ do
  local from, to = KEYS[1 + 2 * pair], KEYS[2 + 2 * pair]
  if ARGV[7 + pair] == '0' then
    redis.call('UNLINK', to)
  else
    redis.call('RENAME', from, to)
    redis.call('PERSIST', to)
  end
end
for place = first, #KEYS do
  redis.call('PERSIST', KEYS[place])
end
redis.call('UNLINK', KEYS[2])
return {1}
