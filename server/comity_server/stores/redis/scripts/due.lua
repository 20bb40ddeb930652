-- Which leases of a namespace have run out.
--
-- KEYS  1 meta   2 leases   3 their deadlines: of the caller's generation
-- ARGV  1 generation   2 how many it tells at the most
--
-- Answers the generation of the namespace and, if it is the caller's, how many µs are left until the next lease runs
-- out ('' if there is none, 0 or less if one has), and a list of the ids of those that have. Drops deadlines that have
-- passed and are of no lease: another program wrote them, and nobody would ever end what they are of.
local generation = redis.call('HGET', KEYS[1], 'generation') or '1'
if generation ~= ARGV[1] then
  return {generation}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])) do
  if redis.call('HGET', KEYS[2], id) then
    due[#due + 1] = id
  else
    redis.call('ZREM', KEYS[3], id)
  end
end
local first = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '9007199254740991', 'WITHSCORES', 'LIMIT', 0, 1)
return {generation, first[2] and math.max(tonumber(first[2]), 0) - now or '', due}
