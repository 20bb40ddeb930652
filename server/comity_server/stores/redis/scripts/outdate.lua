-- Has a name that no namespace has go on in another generation, so that what is still to begin in this one does not.
--
-- KEYS  1 meta
-- ARGV  1 the generation
--
-- Answers 1, or 0 if there is such a namespace, or the generation is another one.
local stands = redis.call('HMGET', KEYS[1], 'generation', 'exists')
if stands[2] == '1' or (stands[1] or '1') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', tonumber(ARGV[1]) + 1))
return 1
