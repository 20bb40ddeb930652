-- Stages a piece of an entry that is too large to be in the log itself. If the entry is not appended, it goes by itself.
--
-- KEYS  1 where it is staged
-- ARGV  1 the number of the piece, from 0   2 the piece   3 how long it stays, in seconds
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
