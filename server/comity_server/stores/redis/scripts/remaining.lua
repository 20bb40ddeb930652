-- How long leases live.
--
-- KEYS  1 the deadlines of leases
-- ARGV  their ids
--
-- Answers for each how many µs it has left, which is less than 0 if it has run out; or '' if it has ended.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for place, id in ipairs(ARGV) do
  local deadline = redis.call('ZSCORE', KEYS[1], id)
  answer[place] = deadline and tonumber(deadline) - now or ''
end
return answer
