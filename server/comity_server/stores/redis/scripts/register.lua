-- Lists the name of a namespace that is about to begin, unless there are too many.
--
-- KEYS  1 names
-- ARGV  1 the name   then for each bound: the least of the names that it is on, their end, and how many there may be
--
-- Answers 0, or which of the bounds has as many others already, from 1.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  for bound = 1, (#ARGV - 1) / 3 do
    local at = 3 * bound - 1
    if redis.call('ZLEXCOUNT', KEYS[1], ARGV[at], ARGV[at + 1]) >= tonumber(ARGV[at + 2]) then
      return bound
    end
  end
end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 0
