-- Makes a server the one that writes down what the log of a namespace has besides versions: see persist.lua.
--
-- KEYS  1 meta   2 requests
-- ARGV  1 generation  2 revision  3 sub  4 epoch  5 last: where the caller thinks that the namespace stands
--       6 the token by which it goes on: that of whoever did so before counts no longer. It begins with "d" where the
--         namespace is to be deleted, or else with "c"
--       7 what tokens begin with that the caller does not wait for, since they are its own
--       8 how long another server that does so is waited for without a sign of it, in ms: but for one that is to
--         delete the namespace none is where this one is
--
-- Answers as append.lua does, where {2} says that another server does this now. Who is to delete the namespace has
-- appends wait from then on, also if it is not where the caller thinks: else one who writes all the time is never
-- caught up with.
redis.call('HDEL', KEYS[1], '')  -- a script that has written may go on where memory is short, and this one frees some
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'sub', 'epoch', 'exists', 'last', 'mark', 'marked')
local moved = {0, stands[1] or '1', stands[2] or '0', stands[3] or '0', stands[4] or '', stands[5] or '0'}
if stands[1] ~= ARGV[1] or stands[4] ~= ARGV[4] then
  return moved
end
local is_there = stands[2] == ARGV[2] and stands[3] == ARGV[3] and (stands[6] or '') == ARGV[5]
local deletes = string.sub(ARGV[6], 1, 1) == 'd'
if not is_there and not deletes then
  return moved
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mark, age = stands[7] or '', now - tonumber(stands[8] or '0')
-- One that is less than 0 is by a clock that was ahead: of a node that was the primary before.
if string.sub(mark, 1, #ARGV[7]) ~= ARGV[7] and (not deletes or string.sub(mark, 1, 1) == 'd') and
   age >= 0 and age < tonumber(ARGV[8]) then
  return {2}
end
redis.call('HSET', KEYS[1], 'mark', ARGV[6], 'marked', string.format('%.0f', now), 'steps', '0')
if not is_there then
  return moved
end
redis.call('PERSIST', KEYS[2])
return {1}
