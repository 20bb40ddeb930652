-- Appends one entry to the log of a namespace, if nothing was appended since the caller looked.
--
-- KEYS  1 meta   2 the log of the caller's generation
--       then where the entry is staged, and the hash of such entries, if it is
--       then leases, and their deadlines, if it grants or ends any: while a slot of a Cluster is moved, a script that is
--         given a key which is not there is refused
-- ARGV  1 generation  2 revision  3 sub  4 epoch  5 last: where the caller thinks that the namespace stands; revision
--         and sub are 0 where it does not exist yet, and last, the token of the newest entry, is empty
--       6 revision  7 sub  8 last: where it stands afterwards
--       9 whether it goes on where memory is short, since what follows it frees some: 1, or else 0
--       10 what tokens of claim.lua begin with by which the caller itself is to delete the namespace
--       11 how long another server that is to is waited for without a sign of it, in ms
--       12 field  13 value: of the entry, "d" and the entry itself, or "s" and TOKEN:PIECES, as it is staged
--       14 how many leases it grants   15 how many it ends since they have run out, and   16 for another reason
--       17... for each that is granted its id, how many µs it lives from now on, and what is kept of it; the ids of
--         those that have run out, and of the others; then names and values that become fields of meta
--
-- Answers {1} if the entry was appended; {2} if another server is about to delete the namespace; {3} if a lease has not
-- run out; or {0, generation, revision, sub, epoch, exists}: where it stands, which is where the caller thinks if of what is staged
-- a part has gone by itself.
--
-- All that may fail for want of memory is the first write: after it, Redis lets a script go on.
if ARGV[9] == '1' then
  redis.call('HDEL', KEYS[1], '')  -- as in claim.lua
end
local staged, large, leases, deadlines
if ARGV[12] == 's' then
  staged, large, leases, deadlines = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
else
  leases, deadlines = KEYS[3], KEYS[4]
end
local stands = redis.call('HMGET', KEYS[1], 'generation', 'revision', 'sub', 'epoch', 'exists', 'last', 'mark', 'marked')
local generation = stands[1] or '1'
local revision, sub = stands[2] or '0', stands[3] or '0'
local epoch = stands[4] or ARGV[4]
if generation ~= ARGV[1] or revision ~= ARGV[2] or sub ~= ARGV[3] or epoch ~= ARGV[4] or
   (stands[6] or '') ~= ARGV[5] or
   (staged and redis.call('HLEN', staged) ~= tonumber(string.match(ARGV[13], ':(%d+)$'))) then
  return {0, generation, revision, sub, stands[4] or '', stands[5] or '0'}
end
local mark = stands[7] or ''
if string.sub(mark, 1, 1) == 'd' and string.sub(mark, 1, #ARGV[10]) ~= ARGV[10] then
  local time = redis.call('TIME')
  local age = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(stands[8] or '0')
  if age >= 0 and age < tonumber(ARGV[11]) then  -- as in claim.lua
    return {2}
  end
end
local granted, expired, ended = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local first = 17 + 3 * granted  -- of the ids of leases that end
local last = first + expired + ended - 1
local now = 0  -- µs
if granted + expired > 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
for place = first, first + expired - 1 do
  if tonumber(redis.call('ZSCORE', deadlines, ARGV[place]) or '0') > now then
    return {3}
  end
end
local id = ARGV[6] .. '-' .. ARGV[7]
redis.call('XADD', KEYS[2], id, ARGV[12], ARGV[13], 'p', ARGV[5])
if staged then  -- what is staged and not appended goes by itself
  redis.call('PERSIST', staged)
  redis.call('HSET', large, ARGV[8], id)
end
for place = 17, first - 1, 3 do
  redis.call('HSET', leases, ARGV[place], ARGV[place + 2])
  redis.call('ZADD', deadlines, string.format('%.0f', now + tonumber(ARGV[place + 1])), ARGV[place])
end
for place = first, last do
  redis.call('HDEL', leases, ARGV[place])
  redis.call('ZREM', deadlines, ARGV[place])
end
if last >= 17 then
  redis.call('HSET', KEYS[1], 'leases', redis.call('HLEN', leases))
end
redis.call('HSET', KEYS[1], 'generation', generation, 'revision', ARGV[6], 'sub', ARGV[7], 'last', ARGV[8],
           'epoch', epoch, unpack(ARGV, last + 1))
return {1}
