
-- ARGV: base, dead node, whether webhooks are wanted, whether it is the first call, then statements of the node as its index has them:
-- they are taken back. Returns whether there may be more to do. A node that came back meanwhile keeps what is left: it tells itself what
-- still holds.
if ARGV[4] == '1' then redis.call('HDEL', base .. 'fence', node) end
if redis.call('HEXISTS', base .. 'fence', node) == 1 then return 0 end
if not epoch then return 0 end
local entries = {unpack(ARGV, 5)}
-- Members leave before their channels are vacated.
table.sort(entries, function(a, b) return a > b end)
for _, entry in ipairs(entries) do
  local kind, rest = string.sub(entry, 1, 1), string.sub(entry, 3)
  local first = string.find(rest, '\0', 1, true)
  local app, name = string.sub(rest, 1, first - 1), string.sub(rest, first + 1)
  if kind == 'm' then
    local second = string.find(name, '\0', 1, true)
    leave(app, string.sub(name, 1, second - 1), string.sub(name, second + 1), ARGV[3])
  elseif kind == 'c' then
    local told = name == '' and '0' or ARGV[3]
    count(app, name, 0, told, told, told)
  else
    offline(app, name)
  end
end
return 1
