-- The last events of cache channels, for one shard.
--
-- <base>kept:app\0channel    string  the event as it stands in an entry; expires
-- <base>keeps:app            zset    channels with such an event -> when it expires, in ms
-- <base>had:P                string  number of the last event of publisher P that came by here; expires
-- <base>missed:app\0channel  string  when a miss was told of; there until an event is kept or the channel is vacated
local base = ARGV[1]

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Never two within a second.
local function miss_is_over(app, channel)
  local missed = base .. 'missed:' .. app .. '\0' .. channel
  local at = redis.call('GET', missed)
  if not at then return end
  local left = 1000 - (now_ms() - at)
  if left > 0 then redis.call('PEXPIRE', missed, whole(left)) else redis.call('DEL', missed) end
end

-- Whether a miss is to be told of, as '1' or '0'. Nobody is subscribed any more: then it is remembered for a second only.
local function miss(app, channel)
  local name = app .. '\0' .. channel
  local missed = base .. 'missed:' .. name
  if redis.call('EXISTS', base .. 'kept:' .. name, missed) > 0 then return '0' end
  redis.call('SET', missed, whole(now_ms()))
  if redis.call('HEXISTS', base .. 'tot:' .. app, channel) == 0 then redis.call('PEXPIRE', missed, 1000) end
  return '1'
end

-- Keeps an event, unless the app keeps as many as it may.
local function keep(app, channel, event, ttl, limit)
  local keeps, now = base .. 'keeps:' .. app, now_ms()
  redis.call('ZREMRANGEBYSCORE', keeps, '-inf', whole(now))
  if not redis.call('ZSCORE', keeps, channel) and redis.call('ZCARD', keeps) >= tonumber(limit) then return end
  redis.call('ZADD', keeps, whole(now + ttl), channel)
  if redis.call('PTTL', keeps) < tonumber(ttl) then redis.call('PEXPIRE', keeps, ttl) end
  redis.call('SET', base .. 'kept:' .. app .. '\0' .. channel, event, 'PX', ttl)
  miss_is_over(app, channel)
end
