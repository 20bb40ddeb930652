-- Which leases of a namespace have run out.
--
-- KEYS  1 meta   2 the deadlines of leases of the caller's generation
-- ARGV  1 generation   2 how many it tells at the most
--
-- Answers the generation of the namespace and, if it is the caller's, how many µs are left until the next lease runs
-- out ('' if there is none, 0 or less if one has), and a list of the ids of those that have.
local generation = redis.call('HGET', KEYS[1], 'generation') or '1'
if generation ~= ARGV[1] then
  return {generation}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
return {generation, first[2] and tonumber(first[2]) - now or '', due}
