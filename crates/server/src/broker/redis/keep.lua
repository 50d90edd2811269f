
-- Adds an entry to the log, pushes it, and keeps those of its events that cache channels keep, in one step. An event that is sent
-- again, since its publisher did not hear the answer, replaces nothing: others may have come behind it.
--
-- ARGV: base, epoch, entry, publisher, how long to remember its numbers in ms; then for each such event its app, channel, first
-- and last byte in the entry, number, ms to keep it, and how many the app may keep in this shard. Returns as XADD does.
local entry, had = ARGV[3], base .. 'had:' .. ARGV[4]
local id = redis.call('XADD', base .. 'log', 'NOMKSTREAM', ARGV[2] .. '-*', 'e', entry)
if not id then return false end
redis.call(publish, base .. 'push', entry)
local last = tonumber(redis.call('GET', had) or 0)
for at = 6, #ARGV, 7 do
  local number = tonumber(ARGV[at + 4])
  if number > last then
    keep(ARGV[at], ARGV[at + 1], string.sub(entry, ARGV[at + 2], ARGV[at + 3]), ARGV[at + 5], ARGV[at + 6])
    redis.call('SET', had, ARGV[at + 4], 'PX', ARGV[5])
  end
end
return id
