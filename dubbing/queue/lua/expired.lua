-- Lists leases past their time and holds each for `hold` ms, so that one caller at a time sees to it.
-- Frees nothing: the row decides. Silent during the grace after a restart or a jump of the clock.
local now = clock()
local found = {}
if now >= tonumber(call('HGET', KEY.meta, 'grace_until') or 0) then
  for i, id in ipairs(call('ZRANGEBYSCORE', KEY.lease, '-inf', now, 'LIMIT', 0, args.limit)) do
    local holder = get_holder(id)
    call('ZADD', KEY.lease, now + args.hold, id)
    found[i] = {id = id, token = holder.token, owner = holder.owner}
  end
end
return cjson.encode(found)
