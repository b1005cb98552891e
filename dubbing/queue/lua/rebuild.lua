-- Begins a rebuild: forgets jobs, leases, settings and the latest time seen, keeps the fair clocks, refuses claims.
-- Ends it: claims are allowed again, and no lease expires before its holder had time to renew it.
-- `hold` alone gives that time, after a jump of the clock.
if args.step == 'begin' then
  for _, name in ipairs({'config', 'job', 'pend', 'delayed', 'lease', 'holder', 'run', 'age'}) do
    call('UNLINK', KEY[name])
  end
  for _, key in pairs(READY) do call('UNLINK', key) end
  call('HSET', KEY.meta, 'state', 'rebuilding', 'last', 0, 'settings', 0)
else
  call('HSET', KEY.meta, 'grace_until', clock() + args.grace)
  if args.step == 'end' then
    call('HSET', KEY.meta, 'state', 'ready', 'run_id', args.run_id)
    wake()
  end
end
return 1
