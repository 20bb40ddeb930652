-- Forks let go of a deleted generation. When the last one has, nothing of it is left.
--
-- KEYS  1 heirs   2... all that there is of the generation
-- ARGV  the holds of the forks
--
-- Answers how many others share it still.
for _, hold in ipairs(ARGV) do
  redis.call('SREM', KEYS[1], hold)
end
local left = redis.call('SCARD', KEYS[1])
if left == 0 then
  for place = 2, #KEYS do
    redis.call('UNLINK', KEYS[place])
  end
end
return left
