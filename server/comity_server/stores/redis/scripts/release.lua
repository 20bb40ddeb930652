-- A server is through with what claim.lua made it do, or has given up: others need not wait.
--
-- KEYS  1 meta
-- ARGV  1 the token of claim.lua, or what it begins with
if string.sub(redis.call('HGET', KEYS[1], 'mark') or '', 1, #ARGV[1]) == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'marked')
end
return 1
