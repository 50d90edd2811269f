
-- Keeps an event for a Redis that has lost it, unless it has one. ARGV: base, app, channel, event, ms to keep it, limit.
if redis.call('EXISTS', base .. 'kept:' .. ARGV[2] .. '\0' .. ARGV[3]) == 0 then
  keep(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
end
