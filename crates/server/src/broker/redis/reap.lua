
-- ARGV: base, dead node, whether it is the first call, then statements of the node as its index has them, and whether webhooks are wanted
-- for each: they are taken back. Returns whether there may be more to do. A node that came back meanwhile keeps what is left: it tells
-- itself what still holds.
if ARGV[3] == '1' then redis.call('HDEL', base .. 'fence', node) end
if redis.call('HEXISTS', base .. 'fence', node) == 1 then return 0 end
if not epoch then return 0 end
local entries, wanted = {}, {}
for at = 4, #ARGV, 2 do
  entries[#entries + 1] = ARGV[at]
  wanted[ARGV[at]] = ARGV[at + 1]
end
-- Members leave before their channels are vacated.
table.sort(entries, function(a, b) return a > b end)
for _, entry in ipairs(entries) do
  local kind, rest = string.sub(entry, 1, 1), string.sub(entry, 3)
  local first = string.find(rest, '\0', 1, true)
  local app, name = string.sub(rest, 1, first - 1), string.sub(rest, first + 1)
  if kind == 'm' then
    local second = string.find(name, '\0', 1, true)
    leave(app, string.sub(name, 1, second - 1), string.sub(name, second + 1), wanted[entry])
  elseif kind == 'c' then
    count(app, name, 0, name == '' and '0' or '1', wanted[entry], wanted[entry])
  else
    offline(app, name)
  end
end
return 1
