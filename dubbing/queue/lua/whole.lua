-- Says whether the index is whole, and under which run of Redis it was built. Keys that vanished alone (eviction, DEL)
-- show in the counts, which every other script keeps equal. Answers 1 or 0, and the run.
local state, run_id, settings = unpack(call('HMGET', KEY.meta, 'state', 'run_id', 'settings'))
local leases = call('ZCARD', KEY.lease)
local places = call('ZCARD', KEY.pend) + call('ZCARD', KEY.delayed) + leases
local whole = state == 'ready'
  and call('HLEN', KEY.job) == places
  and call('HLEN', KEY.holder) == leases
  and call('ZCARD', KEY.run) == 2 * leases
  and call('HLEN', KEY.config) == tonumber(settings or 0)
return cjson.encode({whole and 1 or 0, run_id or ''})
