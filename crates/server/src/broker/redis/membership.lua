-- Who and what is where in the cluster, for one shard; behind kept.lua. One call carries what one node has to tell, or removes a dead node.
--
-- All of it is absolute and may be told again: a node's index says what it told before, and only a difference does anything.
-- Each change that matters to others is announced in the shard's log, in the same step.
--
-- <base>log     stream   events and announcements, in one order
-- <base>epoch   string   of the log
-- <base>said    string   id of the last announcement
-- <base>fence   hash     node -> its generation; a node that is not in it was removed, and has to come back first
-- <base>node:N  hash     what node N told: m\0app\0channel\0user -> 1, c\0app\0channel -> connections, u\0app\0user -> 1
-- <base>m:app\0channel  hash  user -> nodes that have it    <base>i:app\0channel  hash  user -> user_info
-- <base>u:app   hash     user -> nodes where it is signed in
-- <base>tot:app hash     channel -> connections of all nodes    <base>occ:app  zset  occupied channels
-- <base>told:app hash    channel -> when a large count was last announced
-- <base>gone:what\0app\0channel\0user  string, 60 s  what was told of after a loss
-- <base>hooks   stream   webhook events that are not delivered yet
--
-- All of it expires when no node cares for it any more: keys get their time when they are made, and nodes renew it now and then for
-- what they have.
local node = ARGV[2]
local index = base .. 'node:' .. node
local epoch = redis.call('GET', base .. 'epoch')

local function lives(...)
  for _, key in ipairs({...}) do redis.call('PEXPIRE', key, lifetime) end
end

local function text(value)
  return struct.pack('>I4', #value) .. value
end

local function announce(kind, ...)
  local payload = kind
  for _, value in ipairs({...}) do payload = payload .. text(value) end
  local id = redis.call('XADD', base .. 'log', epoch .. '-*', 'a', payload)
  redis.call('SET', base .. 'said', id, 'PX', lifetime)
  redis.call(publish, base .. 'push', '\2' .. text(id) .. payload)
  return id
end

local function hook(wanted, ...)
  if wanted ~= '1' then return end
  local payload = ''
  for _, value in ipairs({...}) do payload = payload .. text(value) end
  redis.call('XADD', base .. 'hooks', 'MAXLEN', '~', 100000, '*', 'h', payload)
end

-- The id of the announcement, '0-0' if others have the user already, or false if the channel is full.
local function join(app, channel, user, info, limit, wanted)
  local name = app .. '\0' .. channel
  local members = base .. 'm:' .. name
  if redis.call('HEXISTS', members, user) == 0 and redis.call('HLEN', members) >= tonumber(limit) then return false end
  if redis.call('HSETNX', index, 'm\0' .. name .. '\0' .. user, 1) == 0 then return '0-0' end
  if redis.call('HINCRBY', members, user, 1) > 1 then return '0-0' end
  redis.call('HSET', base .. 'i:' .. name, user, info)
  lives(members, base .. 'i:' .. name)
  hook(wanted, 'member_added', app, channel, user)
  return announce('J', app, channel, user, info)
end

local function leave(app, channel, user, wanted)
  local name = app .. '\0' .. channel
  local members = base .. 'm:' .. name
  if redis.call('HDEL', index, 'm\0' .. name .. '\0' .. user) == 0 then return end
  if redis.call('HINCRBY', members, user, -1) <= 0 then
    redis.call('HDEL', members, user)
    redis.call('HDEL', base .. 'i:' .. name, user)
    announce('L', app, channel, user)
    hook(wanted, 'member_removed', app, channel, user)
  end
end

-- Returns 'later' if the count is large and was announced a moment ago.
local function count(app, channel, connections, tells, wanted_occupied, wanted_count)
  local field = 'c\0' .. app .. '\0' .. channel
  local before = tonumber(redis.call('HGET', index, field) or 0)
  local change = connections - before
  local total = tonumber(redis.call('HGET', base .. 'tot:' .. app, channel) or 0)
  if change ~= 0 then
    if connections == 0 then redis.call('HDEL', index, field) else redis.call('HSET', index, field, connections) end
    total = total + change
    if total <= 0 then
      redis.call('HDEL', base .. 'tot:' .. app, channel)
      redis.call('HDEL', base .. 'told:' .. app, channel)
      redis.call('ZREM', base .. 'occ:' .. app, channel)
      miss_is_over(app, channel)
      if tells == '1' then hook(wanted_count, 'subscription_count', app, channel, '0') end
      hook(wanted_occupied, 'channel_vacated', app, channel)
      if tells == '1' then announce('C', app, channel, '0') end
      return ''
    end
    redis.call('HSET', base .. 'tot:' .. app, channel, total)
    if total == change then
      redis.call('ZADD', base .. 'occ:' .. app, 0, channel)
      lives(base .. 'tot:' .. app, base .. 'occ:' .. app)
      hook(wanted_occupied, 'channel_occupied', app, channel)
    end
  end
  if tells ~= '1' or (change == 0 and total <= 100) then return '' end
  if total > 100 then
    local now = now_ms()
    local told = tonumber(redis.call('HGET', base .. 'told:' .. app, channel) or 0)
    if now - told < 5000 then return 'later' end
    redis.call('HSET', base .. 'told:' .. app, channel, string.format('%.0f', now))
    lives(base .. 'told:' .. app)
  end
  local shown = string.format('%.0f', total)
  announce('C', app, channel, shown)
  hook(wanted_count, 'subscription_count', app, channel, shown)
  return ''
end

local function online(app, user)
  if redis.call('HSETNX', index, 'u\0' .. app .. '\0' .. user, 1) == 1
    and redis.call('HINCRBY', base .. 'u:' .. app, user, 1) == 1 then
    lives(base .. 'u:' .. app)
    announce('O', app, user)
  end
end

local function offline(app, user)
  if redis.call('HDEL', index, 'u\0' .. app .. '\0' .. user) == 1
    and redis.call('HINCRBY', base .. 'u:' .. app, user, -1) <= 0 then
    redis.call('HDEL', base .. 'u:' .. app, user)
    announce('F', app, user)
  end
end

-- The last of something went together with the log that knew of it. Told once, whichever node had it, unless it is there by now. Of what
-- was not lost, since only the log's end was, or another server has it, the node takes its own part back as always.
local function gone(what, app, channel, user, wanted)
  if what == 'member' and redis.call('HEXISTS', index, 'm\0' .. app .. '\0' .. channel .. '\0' .. user) == 1 then
    return leave(app, channel, user, wanted)
  elseif what == 'channel' and redis.call('HEXISTS', index, 'c\0' .. app .. '\0' .. channel) == 1 then
    return count(app, channel, 0, '1', wanted, wanted)
  elseif what == 'user' and redis.call('HEXISTS', index, 'u\0' .. app .. '\0' .. user) == 1 then
    return offline(app, user)
  end
  local places = {
    member = {base .. 'm:' .. app .. '\0' .. channel, user},
    channel = {base .. 'tot:' .. app, channel},
    user = {base .. 'u:' .. app, user}
  }
  if redis.call('HEXISTS', unpack(places[what])) == 1 then return end
  local told = base .. 'gone:' .. what .. '\0' .. app .. '\0' .. channel .. '\0' .. user
  if not redis.call('SET', told, 1, 'NX', 'PX', 60000) then return end
  if what == 'member' then
    announce('L', app, channel, user)
    hook(wanted, 'member_removed', app, channel, user)
  elseif what == 'channel' then
    hook(wanted, 'channel_vacated', app, channel)
  else
    announce('F', app, user)
  end
end
