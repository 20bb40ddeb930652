-- Renews leases of a namespace.
--
-- KEYS  1 meta   2 leases   3 their deadlines: of the caller's generation
-- ARGV  1 generation
--       2... for each its id, and how many µs it lives from now on at the least, or 0 for its ttl
--
-- Answers the generation of the namespace and, if it is the caller's, for each how many µs it lives from now on; 0: it
-- has ended. None lives shorter than before.
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua: what is renewed takes no more room
local generation = redis.call('HGET', KEYS[1], 'generation') or '1'
if generation ~= ARGV[1] then
  return {generation}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {generation}
for place = 2, #ARGV, 2 do
  local ttl = string.match(redis.call('HGET', KEYS[2], ARGV[place]) or '', '^%d+')
  local remaining = 0
  if ttl then
    if ARGV[place + 1] ~= '0' then
      ttl = ARGV[place + 1]
    end
    local deadline = math.max(now + tonumber(ttl), tonumber(redis.call('ZSCORE', KEYS[3], ARGV[place]) or '0'))
    redis.call('ZADD', KEYS[3], string.format('%.0f', deadline), ARGV[place])
    remaining = deadline - now
  end
  answer[#answer + 1] = remaining
end
return answer
