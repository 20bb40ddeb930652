-- Keeps a deleted namespace that was copied here for its forks, if all of it is there.
--
-- KEYS  1 its meta, which says who copies it   2 heirs   3... its other keys
-- ARGV  1 who the caller is
--       2... how many fields or entries each of the other keys has
--
-- Answers 1, or 0 if a part is gone. To be told twice does nothing.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
  return 0
end
for place = 3, #KEYS do
  local kind, size = redis.call('TYPE', KEYS[place]).ok, 0
  if kind == 'stream' then
    size = redis.call('XLEN', KEYS[place])
  elseif kind == 'hash' then
    size = redis.call('HLEN', KEYS[place])
  end
  if size ~= tonumber(ARGV[place - 1]) then
    return 0
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PERSIST', key)
end
return 1
