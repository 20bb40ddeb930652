-- Makes a server the one that writes down what the log of a namespace has besides versions: see persist.lua.
--
-- KEYS  1 meta   2 requests
-- ARGV  1 generation  2 revision  3 sub  4 epoch  5 last: where the caller thinks that the namespace stands
--       6 the token by which it goes on: that of whoever did so before counts no longer. It begins with "d" where the
--         namespace is to be deleted, or else with "c"
--       7 how long another server that does so is waited for without a sign of it, in ms: but for one that is to
--         delete the namespace none is where this one is
--
-- Answers as append.lua does, or {2} if another server does this now.
redis.call('HDEL', KEYS[1], '')  -- a script that has written may go on where memory is short, and this one frees some
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'sub', 'epoch', 'exists', 'last', 'mark', 'marked')
if stands[1] ~= ARGV[1] or stands[2] ~= ARGV[2] or stands[3] ~= ARGV[3] or stands[4] ~= ARGV[4] or
   (stands[6] or '') ~= ARGV[5] then
  return {0, stands[1] or '1', stands[2] or '0', stands[3] or '0', stands[4] or '', stands[5] or '0'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(stands[8] or '0') < tonumber(ARGV[7]) and
   (string.sub(ARGV[6], 1, 1) == 'c' or string.sub(stands[7], 1, 1) == 'd') then
  return {2}
end
redis.call('HSET', KEYS[1], 'mark', ARGV[6], 'marked', string.format('%.0f', now), 'steps', '0')
redis.call('PERSIST', KEYS[2])
return {1}
