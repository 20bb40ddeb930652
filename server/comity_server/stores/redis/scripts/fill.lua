-- Writes some of a namespace that is being copied here, under keys that go by themselves if nobody goes on.
--
-- KEYS  1 the hash that says who copies it   2 the key that is filled   3 the deadlines of leases, where it is these
-- ARGV  1 who the caller is   2 how many seconds the keys are kept
--       3 'hash', then fields and values; or 'log', then for each entry its id, field, value, and the token before it;
--         or 'leases', then for each its id, how many µs it lives from now on, and what is kept of it
--
-- Answers 1, or 0 if somebody else copies it now. To be told twice does nothing.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
  return 0
end
if ARGV[3] == 'hash' then
  for place = 4, #ARGV, 2 do
    redis.call('HSET', KEYS[2], ARGV[place], ARGV[place + 1])
  end
elseif ARGV[3] == 'leases' then
  local time = redis.call('TIME')
  for place = 4, #ARGV, 3 do
    local deadline = time[1] * 1000000 + time[2] + tonumber(ARGV[place + 1])
    redis.call('HSET', KEYS[2], ARGV[place], ARGV[place + 2])
    redis.call('ZADD', KEYS[3], string.format('%.0f', deadline), ARGV[place])
  end
  redis.call('EXPIRE', KEYS[3], ARGV[2])
else
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local reached = newest and tonumber(string.match(newest[1], '^%d+')) or -1
  for place = 4, #ARGV, 4 do
    if tonumber(string.match(ARGV[place], '^%d+')) > reached then
      redis.call('XADD', KEYS[2], ARGV[place], ARGV[place + 1], ARGV[place + 2], 'p', ARGV[place + 3])
    end
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
