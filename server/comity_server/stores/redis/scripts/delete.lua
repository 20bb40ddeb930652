-- Deletes a namespace, if nothing was appended since the caller looked: its name goes on counting in a new generation.
--
-- KEYS  1 meta   2 log   3 the meta of the generation when it is buried   4 heirs   5 requests
--       6 leases   7 their deadlines   8... what else there is of the generation
-- ARGV  1 generation  2 revision  3 sub  4 epoch  5 last: where the caller thinks that the namespace stands
--       6 the token of claim.lua   7 the number of steps since then, by which the outcomes were written down
--       8 the revision that the name goes on from
--       9 how long the log is kept, in seconds, so that whoever follows it hears of the end
--       10 how long the outcomes are, in seconds
--       11 the token of this attempt
--       12... the holds of forks that share it: with any, all of it is kept
--
-- Answers as append.lua does.
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'sub', 'epoch', 'exists', 'time', 'last', 'mark',
                          'steps')
if stands[1] ~= ARGV[1] or stands[2] ~= ARGV[2] or stands[3] ~= ARGV[3] or stands[4] ~= ARGV[4] or
   (stands[7] or '') ~= ARGV[5] or stands[8] ~= ARGV[6] or
   stands[9] ~= ARGV[7] then
  return {0, stands[1] or '1', stands[2] or '0', stands[3] or '0', stands[4] or '', stands[5] or '0'}
end
redis.call('XADD', KEYS[2], ARGV[8] .. '-0', 'e', ARGV[11])
if #ARGV > 11 then
  redis.call('RENAME', KEYS[1], KEYS[3])
  for place = 12, #ARGV do
    redis.call('SADD', KEYS[4], ARGV[place])
  end
else
  redis.call('EXPIRE', KEYS[2], ARGV[9])
  redis.call('UNLINK', KEYS[1])
  for place = 8, #KEYS do
    redis.call('UNLINK', KEYS[place])
  end
end
redis.call('UNLINK', KEYS[6], KEYS[7])
redis.call('EXPIRE', KEYS[5], ARGV[10])
redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', tonumber(ARGV[1]) + 1), 'revision', ARGV[8], 'sub', '0',
           'epoch', ARGV[4], 'exists', '0', 'time', stands[6] or '0', 'base', ARGV[8], 'floor', ARGV[8])
return {1}
