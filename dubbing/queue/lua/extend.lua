-- Renews leases. Guarantees that only the holder of the newest token renews. Answers a lease:
-- 1 renewed, 2 renewed and asked to cancel, 0 somebody else holds it, -1 there is no lease.
local now = clock()
local answers = {}
for i, wanted in ipairs(args.leases) do
  local id, token = wanted[1], wanted[2]
  local holder = get_holder(id)
  if not holder then
    answers[i] = -1
  elseif holder.token ~= token then
    answers[i] = 0
  else
    call('ZADD', KEY.lease, now + args.ttl, id)
    answers[i] = holder.cancel and 2 or 1
  end
end
return cjson.encode(answers)
