-- Lists the name of a namespace that is about to begin, unless there are too many.
--
-- KEYS  1 names
-- ARGV  1 the name   2 how many there may be
--
-- Answers 1, or 0 if there are as many others already.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
