-- Gives a namespace, or the whole, another epoch, since revisions may be given out anew.
--
-- KEYS  1 the meta of the namespace, or the key of the epoch
-- ARGV  1 the epoch that it has, as the caller knows it   2 the new one
--
-- Answers the epoch that it has now, or '' if there is no such key.
local is_meta = redis.call('TYPE', KEYS[1]).ok == 'hash'
local epoch
if is_meta then
  epoch = redis.call('HGET', KEYS[1], 'epoch')
else
  epoch = redis.call('GET', KEYS[1])
end
if not epoch then
  return ''
end
if epoch ~= ARGV[1] then
  return epoch
end
if is_meta then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return ARGV[2]
