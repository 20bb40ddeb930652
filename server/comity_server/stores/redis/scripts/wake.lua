-- Has a server look into a namespace, when the first of its leases may have run out.
--
-- KEYS  1 expiries
-- ARGV  1 the name   2 when, in µs
--
-- Answers when one is going to: that may be earlier.
redis.call('ZADD', KEYS[1], 'LT', ARGV[2], ARGV[1])
return redis.call('ZSCORE', KEYS[1], ARGV[1])
