
-- ARGV: base, node, generation, then each statement with its arguments. Returns the epoch, whether the node may speak, and an
-- answer to each statement. A join is answered with the id of its announcement, '0-0' if that was made before, or '' if the channel is
-- full; and, if asked for, with the id of the last announcement and all members as of then.
if not epoch or redis.call('HGET', base .. 'fence', node) ~= ARGV[3] then return {epoch or '', 'fenced', {}} end
local answers, at = {}, 4
local function take(count)
  at = at + count
  return unpack(ARGV, at - count, at - 1)
end
while at <= #ARGV do
  local statement = take(1)
  if statement == 'join' then
    local app, channel, user, info, limit, wanted, all = take(7)
    local answer = {join(app, channel, user, info, limit, wanted) or ''}
    if all == '1' then
      answer[2] = redis.call('GET', base .. 'said') or (epoch .. '-0')
      answer[3] = redis.call('HGETALL', base .. 'i:' .. app .. '\0' .. channel)
    end
    answers[#answers + 1] = answer
  elseif statement == 'leave' then
    leave(take(4))
    answers[#answers + 1] = ''
  elseif statement == 'count' then
    local app, channel, connections, tells, wanted_occupied, wanted_count = take(6)
    answers[#answers + 1] = count(app, channel, tonumber(connections), tells, wanted_occupied, wanted_count)
  elseif statement == 'say' then
    redis.call('XADD', base .. 'hooks', 'MAXLEN', '~', 100000, '*', 'h', (take(1)))
    answers[#answers + 1] = ''
  elseif statement == 'miss' then
    local app, channel = take(2)
    hook(miss(app, channel), 'cache_miss', app, channel)
    answers[#answers + 1] = ''
  elseif statement == 'gone' then
    gone(take(5))
    answers[#answers + 1] = ''
  elseif statement == 'online' then
    online(take(2))
    answers[#answers + 1] = ''
  else
    offline(take(2))
    answers[#answers + 1] = ''
  end
end
lives(base .. 'fence', base .. 'hooks', index)
return {epoch, 'heard', answers}
