-- A server is through with what claim.lua made it do: others need not wait.
--
-- KEYS  1 meta
-- ARGV  1 the token of claim.lua
if redis.call('HGET', KEYS[1], 'mark') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'marked')
end
return 1
