-- Writes something of no meaning, also where memory is short, so that WAIT on the same connection tells of all that was
-- written before.
--
-- KEYS  1 meta
redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
return redis.call('HINCRBY', KEYS[1], 'waits', 1)
