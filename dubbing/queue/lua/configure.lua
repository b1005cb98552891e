-- Sets or forgets a cap, a weight, a pause or a pool's slots, and moves the users it concerns in or out of line.
local key = args.scope .. ':' .. args.name .. ':' .. args.field
if args.value then call('HSET', KEY.config, key, args.value) else call('HDEL', KEY.config, key) end
call('HSET', KEY.meta, 'settings', call('HLEN', KEY.config))
if args.scope == 'user' and args.name ~= '*' then
  refresh(args.name)
elseif args.scope == 'user' then
  -- Everybody with waiting jobs: jump through the line from user to user.
  for pool, _ in pairs(READY) do
    local from = '[' .. pool .. '|'
    while true do
      local first = call('ZRANGEBYLEX', KEY.pend, from, '[' .. pool .. '|\255', 'LIMIT', 0, 1)[1]
      if not first then break end
      local user = first:match('^[^|]+|([^|]+)|')
      refresh(user)
      from = '[' .. pool .. '|' .. user .. '|\255'
    end
  end
end
wake()
return 1
